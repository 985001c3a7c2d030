// Package learn finds out where a program listens. It starts the program once, in a unit with the
// sandbox of the app's instances, under a supervisor that gives each of its TCP sockets a listener
// which nobody knows of (bindnotify.Supervisor.Learn). So nothing is opened to the network, and a
// port that is in use is no obstacle. Then the unit is stopped and deleted.
//
// It costs one start of the program, once in an app's life, and settleTime.
package learn

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/unitgen/unitgen/internal/app"
	"github.com/unitgen/unitgen/internal/bindnotify"
	"github.com/unitgen/unitgen/internal/cgroup"
	"github.com/unitgen/unitgen/internal/systemd"
)

// Trial is one run of a program.
type Trial struct {
	Conn     *systemd.Conn
	Endpoint systemd.Endpoint // of Conn
	Dir      string           // of the manager's units that go with a boot: /run/systemd/system
	Unit     string           // the file's name: a template, such as unitgen-learn-web@.service
	Text     string
	Limit    time.Duration // how long the program may take to listen
}

// Why a program was not seen to listen.
var (
	ErrEnded  = errors.New("the program ended before it listened")
	ErrSilent = errors.New("the program did not listen in time")
)

// settleTime is how long a program that listens may take for its next port. Servers open their
// ports in one go.
const settleTime = 500 * time.Millisecond

// Pauses between two looks at what the supervisor has noted. The kernel tells nobody of a write to
// a memory file.
const (
	lookFirst = 10 * time.Millisecond
	lookLast  = 100 * time.Millisecond
)

// Run runs the program until it listens, and returns where, with what else its supervisor has seen.
// The error is ErrEnded or ErrSilent if it did not listen; what was seen is returned with it.
// Explain gets to the unit before Close removes it.
func (t Trial) Run(ctx context.Context) (bindnotify.State, error) {
	if err := os.MkdirAll(t.Dir, 0o755); err != nil {
		return bindnotify.State{}, err
	}
	if err := os.WriteFile(filepath.Join(t.Dir, t.Unit), []byte(t.Text), 0o644); err != nil {
		return bindnotify.State{}, fmt.Errorf("write trial unit: %w", err)
	}
	units := systemd.NewWatcher(systemd.WatcherOptions{Endpoint: t.Endpoint})
	defer units.Close()
	if err := t.Conn.Run(ctx, systemd.Job{Verb: systemd.Start, Unit: t.Instance()}); err != nil {
		if _, ok := errors.AsType[*systemd.JobError](err); ok {
			return bindnotify.State{}, ErrEnded
		}
		return bindnotify.State{}, err
	}
	unit, err := t.Conn.Unit(ctx, t.Instance())
	if err != nil {
		return bindnotify.State{}, err
	}
	if unit.ControlGroup == "" {
		return bindnotify.State{}, ErrEnded
	}
	units.Watch(t.Instance())
	return t.follow(ctx, cgroup.Dir(unit.ControlGroup), units)
}

// follow reads what the supervisor sees until the program listens and has settled, ends, or the
// limit has passed.
func (t Trial) follow(ctx context.Context, dir string, units *systemd.Watcher) (state bindnotify.State, err error) {
	limit := time.NewTimer(t.Limit)
	defer limit.Stop()
	pause := lookFirst
	look := time.NewTimer(pause)
	defer look.Stop()
	var settled time.Time // when the program is taken to have opened all its ports
	for {
		select {
		case u := <-units.Events():
			if u.Ended() {
				if listens(state) {
					return state, nil
				}
				return state, ErrEnded
			}
		case now := <-look.C:
			if next, err := bindnotify.Find(dir); err == nil {
				if len(next.Facts) > len(state.Facts) {
					settled = now.Add(settleTime)
				}
				state = next
			}
			if listens(state) && now.After(settled) {
				return state, nil
			}
			pause = min(2*pause, lookLast)
			look.Reset(pause)
		case <-limit.C:
			if listens(state) {
				return state, nil
			}
			return state, ErrSilent
		case <-ctx.Done():
			return state, ctx.Err()
		}
	}
}

// Instance is the unit that runs.
func (t Trial) Instance() string { return strings.TrimSuffix(t.Unit, "@.service") + "@1.service" }

// Close stops the program and removes the unit.
func (t Trial) Close(ctx context.Context) error {
	err := t.Conn.Run(ctx, systemd.Job{Verb: systemd.Stop, Unit: t.Instance()})
	if systemd.IsNoSuchUnit(err) {
		err = nil
	}
	if u, e := t.Conn.Unit(ctx, t.Instance()); e == nil && u.ActiveState == "failed" {
		err = errors.Join(err, t.Conn.ResetFailed(ctx, t.Instance()))
	}
	if e := os.Remove(filepath.Join(t.Dir, t.Unit)); e != nil && !errors.Is(e, os.ErrNotExist) {
		err = errors.Join(err, e)
	}
	return err
}

func listens(s bindnotify.State) bool {
	return slices.ContainsFunc(s.Facts, func(f bindnotify.Fact) bool { return f.Kind == bindnotify.Listens && f.Address.Port() != 0 })
}

// Ports are the TCP ports that a program listens on, in the order in which it opened them. A port
// of the kernel's choice is none.
func Ports(s bindnotify.State) []uint16 {
	var ports []uint16
	for _, f := range s.Facts {
		if f.Kind == bindnotify.Listens && f.Address.Port() != 0 && !slices.Contains(ports, f.Address.Port()) {
			ports = append(ports, f.Address.Port())
		}
	}
	return ports
}

// Listen are the addresses of one of these ports as the app's: what the program asked for, and no
// more. A socket of IPv6 for every address takes IPv4 too, unless the program has one for IPv4
// besides.
func Listen(s bindnotify.State, port uint16) []app.Listen {
	var asked []netip.Addr
	for _, f := range s.Facts {
		if a := f.Address.Addr().Unmap(); f.Kind == bindnotify.Listens && f.Address.Port() == port && !slices.Contains(asked, a) {
			asked = append(asked, a)
		}
	}
	all4, all6 := slices.Contains(asked, netip.IPv4Unspecified()), slices.Contains(asked, netip.IPv6Unspecified())
	any4 := slices.ContainsFunc(asked, netip.Addr.Is4)
	if all6 && !any4 {
		return []app.Listen{{Port: port}}
	}
	var listen []app.Listen
	for _, a := range asked {
		if covered := a.Is4() && all4 || a.Is6() && all6; !covered || a.IsUnspecified() {
			listen = append(listen, app.Listen{Addr: a, Port: port})
		}
	}
	return listen
}

// UDP says whether the program has bound a UDP port.
func UDP(s bindnotify.State) bool {
	return slices.ContainsFunc(s.Facts, func(f bindnotify.Fact) bool { return f.Kind == bindnotify.Binds && f.Protocol == "udp" })
}
