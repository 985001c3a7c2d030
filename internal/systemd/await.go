package systemd

import (
	"context"
	"fmt"
	"strings"

	"github.com/godbus/dbus/v5"
)

// AwaitStop returns nil when a stop or restart job of unit waits or runs: at once if there is one,
// otherwise when anybody queues one. It returns ctx's error if ctx ends earlier, and an error that
// IsDisconnected when the connection breaks.
func (c *Conn) AwaitStop(ctx context.Context, unit string) error {
	l, err := c.present(ctx)
	if err != nil {
		return err
	}
	signals := l.signals()
	defer l.bus.RemoveSignal(signals)
	rules := [][]dbus.MatchOption{
		{dbus.WithMatchSender(busName), dbus.WithMatchInterface(managerIf), dbus.WithMatchMember("JobNew")},
		// A job that runs may be turned into another one: start becomes restart.
		{dbus.WithMatchSender(busName), dbus.WithMatchPathNamespace(managerPath + "/job")},
	}
	for _, rule := range rules {
		if err := l.addMatch(ctx, rule...); err != nil {
			return fmt.Errorf("follow jobs: %w", err)
		}
	}
	if err := l.subscribe(ctx); err != nil {
		return err
	}
	for {
		state, err := c.Unit(ctx, unit)
		if err != nil {
			return err
		}
		if state.JobType != "" && state.JobType != "start" {
			return nil
		}
		if err := l.nextJob(ctx, unit, signals); err != nil {
			return err
		}
	}
}

// nextJob waits for a signal about a job: a new one of unit, or a change of any.
func (l *link) nextJob(ctx context.Context, unit string, signals <-chan *dbus.Signal) error {
	for {
		select {
		case sig, ok := <-signals:
			if !ok {
				return errConnectionLost
			}
			name, _ := body[string](sig, 2)
			if sig.Name == managerIf+".JobNew" && name == unit || strings.HasPrefix(string(sig.Path), string(managerPath)+"/job/") {
				return nil
			}
		case <-l.bus.Context().Done():
			return errConnectionLost
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}
