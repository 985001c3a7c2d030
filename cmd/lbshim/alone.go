package main

import (
	"context"
	"os"
	"runtime"
	"time"

	"golang.org/x/sys/unix"

	"github.com/unitgen/unitgen/internal/app"
	"github.com/unitgen/unitgen/internal/cgroup"
	"github.com/unitgen/unitgen/internal/command"
	"github.com/unitgen/unitgen/internal/control"
	"github.com/unitgen/unitgen/internal/lifecycle"
	"github.com/unitgen/unitgen/internal/sockdiag"
	"github.com/unitgen/unitgen/internal/systemd"
)

// drainAlone waits for the connections of an app that is being stopped and whose shim has died. If
// counting fails, drainAlone reports it and the drain ends, and then the program is stopped, as PID
// 1 waits for this process.
//
// An app that stops in the usual order has no connection then: its instances end before the shim. An
// idle one may have one that waits until the app starts again.
func drainAlone(ctx context.Context, e *command.Env, o command.Options, p control.DrainParameters, began time.Time) error {
	ports, paths, parking, serve, err := readAlone(ctx, e, o)
	if err != nil {
		return err
	}
	conn, err := openDiag(o)
	if err != nil {
		return err
	}
	defer conn.Close()
	left, timedOut, err := lifecycle.Alone{
		Count: func() (sockdiag.Stat, error) {
			own, err := countUnix(paths)
			if err != nil || len(ports) == 0 {
				return own, err
			}
			count, err := conn.Count(sockdiag.Filter{Ports: ports})
			// Without a balancer nobody accepts these. If the app is idle, they start it when it has
			// stopped.
			switch {
			case serve.Path == string(app.PathHandoff):
				count.Queued = 0
			case err == nil && parking != 0 && count.Queued > 0:
				var parked sockdiag.Stat
				parked, err = conn.Count(sockdiag.Filter{Ports: ports, Cgroup: parking})
				count.Queued -= min(count.Queued, parked.Queued)
			}
			return count.Plus(own), err
		},
		Began: began, Limit: serve.DrainTimeout, Graceful: p.Graceful, Settle: p.Settle,
	}.Wait(ctx)
	if err != nil {
		return err
	}
	log := e.Log.Info
	if timedOut {
		log = e.Log.Warn
	}
	log("instance drained without a balancer, which has died", "instance", o.Instance, "connections", left.Open, "busy", left.Busy,
		"timed_out", timedOut)
	return nil
}

func countUnix(paths []string) (sockdiag.Stat, error) {
	if len(paths) == 0 {
		return sockdiag.Stat{}, nil
	}
	table, err := os.Open(lifecycle.UnixTable)
	if err != nil {
		return sockdiag.Stat{}, err
	}
	defer table.Close()
	return lifecycle.CountUnix(table, paths)
}

// readAlone asks PID 1 for what the shim knew: the app's listeners, the control group of the parking
// listener, 0 if it is not known, and the shim's options, drop-ins included.
func readAlone(ctx context.Context, e *command.Env, o command.Options) (ports []uint16, paths []string, parking uint64, serve command.Options, err error) {
	err = systemd.Ask(ctx, o.Endpoint(e), func(c *systemd.Conn) (err error) {
		if serve, err = command.ServeOptions(ctx, c, o.App); err != nil {
			return err
		}
		if ports, paths, err = lifecycle.Listeners(ctx, c, o.App); err != nil {
			return err
		}
		socket, err := c.Unit(ctx, o.App.Socket())
		var dir unix.Stat_t
		if err == nil && socket.ControlGroup != "" && unix.Stat(cgroup.Dir(socket.ControlGroup), &dir) == nil {
			parking = dir.Ino // which is the id of the group
		}
		return err
	})
	return ports, paths, parking, serve, err
}

// openDiag opens a socket to count connections with in the network of the port, as an instance may
// have another one. The thread stays there and ends with its goroutine.
func openDiag(o command.Options) (*sockdiag.Conn, error) {
	type result struct {
		conn *sockdiag.Conn
		err  error
	}
	opened := make(chan result, 1)
	go func() { // ends at once, and the locked thread with it
		runtime.LockOSThread()
		conn, err := diagHere(o)
		opened <- result{conn, err}
	}()
	r := <-opened
	return r.conn, r.err
}

func diagHere(o command.Options) (*sockdiag.Conn, error) {
	if !o.UserUnits {
		if err := joinNetwork("/proc/1/ns/net"); err != nil {
			return nil, err
		}
	}
	fd, err := sockdiag.Open()
	if err != nil {
		return nil, err
	}
	return sockdiag.New(fd)
}
