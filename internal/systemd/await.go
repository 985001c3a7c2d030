package systemd

import (
	"context"
	"fmt"
	"strings"

	"github.com/godbus/dbus/v5"
)

// AwaitStop returns nil when a stop or restart job of unit waits or runs: at once if there is one,
// otherwise when anybody queues one. It returns ctx's error if ctx ends earlier.
func (c *Conn) AwaitStop(ctx context.Context, unit string) error {
	signals := c.signals()
	defer c.bus.RemoveSignal(signals)
	rules := [][]dbus.MatchOption{
		{dbus.WithMatchSender(busName), dbus.WithMatchInterface(managerIf), dbus.WithMatchMember("JobNew")},
		// A job that runs may be turned into another one: start becomes restart.
		{dbus.WithMatchSender(busName), dbus.WithMatchPathNamespace(managerPath + "/job")},
	}
	for _, rule := range rules {
		if err := c.addMatch(ctx, rule...); err != nil {
			return fmt.Errorf("follow jobs: %w", err)
		}
	}
	// Without it the manager sends nothing to the bus; it ends with the connection.
	if err := c.call(ctx, "Subscribe", nil); err != nil && !isDBusError(err, busName+".AlreadySubscribed") {
		return fmt.Errorf("subscribe to systemd: %w", err)
	}
	for {
		state, err := c.Unit(ctx, unit)
		if err != nil {
			return err
		}
		if state.JobType != "" && state.JobType != "start" {
			return nil
		}
		if err := c.nextJob(ctx, unit, signals); err != nil {
			return err
		}
	}
}

// nextJob waits for a signal about a job: a new one of unit, or a change of any.
func (c *Conn) nextJob(ctx context.Context, unit string, signals <-chan *dbus.Signal) error {
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
		case <-c.bus.Context().Done():
			return errConnectionLost
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}
