package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"

	"github.com/unitgen/unitgen/internal/control"
	"github.com/unitgen/unitgen/test/apps"
)

// look is all that invariants judge, read in one go while nothing is done to the system but load.
type look struct {
	calm   *look // the first one; nil in that itself
	jobs   string
	joined string                                  // the notes of instances that have joined, a path a line
	units  map[string]map[string]map[string]string // by app, by unit, its properties
	status map[string]control.Status               // by app, on the control socket
	shims  map[string]usage                        // by app
	init   usage
	ring   map[string]map[string]int // by app, how many fresh connections each process answered
	doctor map[string]string         // by app, what it complains about
	log    string                    // what the shims said that they must never
}

// usage is what a process has.
type usage struct{ files, kilobytes int }

// see takes a look. One that is not thorough leaves out what costs the system work: ring, doctor
// and log.
func (w *world) see(ctx context.Context, thorough bool) (*look, error) {
	l := &look{calm: w.calm, units: map[string]map[string]map[string]string{}, status: map[string]control.Status{},
		shims: map[string]usage{}, ring: map[string]map[string]int{}, doctor: map[string]string{}}
	if err := w.seeUnits(ctx, l); err != nil {
		return nil, err
	}
	init, err := w.c.Init()
	if err != nil {
		return nil, err
	}
	if l.init, err = usageOf(init); err != nil {
		return nil, err
	}
	for _, name := range w.names {
		a := w.apps[name]
		if l.status[name], err = apps.AskStatus(ctx, w.c, a.control()); err != nil {
			return nil, fmt.Errorf("ask shim of %s for its status: %w", name, err)
		}
		p, err := w.find(ctx, a.shim(), isProgram, appears)
		if err != nil {
			return nil, err
		}
		if p == nil {
			return nil, fmt.Errorf("find shim of %s: it does not run", name)
		}
		l.shims[name], err = usageOf(p.pid)
		p.close()
		if err != nil {
			return nil, err
		}
	}
	if thorough {
		err = w.seeMore(ctx, l)
	}
	return l, err
}

func usageOf(pid int) (u usage, err error) {
	if u.files, err = openFiles(pid); err == nil {
		u.kilobytes, err = resident(pid)
	}
	return u, err
}

const properties = "Id,ActiveState,SubState,Result,MainPID,StatusText,NFileDescriptorStore"

// seeUnits asks PID 1, in two commands for all apps.
func (w *world) seeUnits(ctx context.Context, l *look) error {
	var err error
	if l.joined, err = w.run(ctx, "find", "/run/unitgen", "-path", "*/joined/*/noted"); err != nil {
		return err
	}
	if l.jobs, err = w.run(ctx, "systemctl", "list-jobs", "--no-legend", "--plain"); err != nil {
		return err
	}
	args := []string{"systemctl", "show", "--property=" + properties}
	for _, name := range w.names {
		args = append(args, w.apps[name].patterns()...)
		l.units[name] = map[string]map[string]string{}
	}
	out, err := w.run(ctx, args...)
	if err != nil {
		return err
	}
	for _, unit := range parseShow(out) {
		name := unit["Id"][:strings.IndexAny(unit["Id"], ".@-")]
		l.units[name][unit["Id"]] = unit
	}
	return nil
}

// forbidden are words of a program that fails in a way nobody has thought of, and of a drain that
// waits for nothing: no request is in flight for as long as a drain's time-out.
const forbidden = "panic:|fatal error:|goroutine [0-9]+ \\[|SIGSEGV|core-dump|Watchdog timeout|timed_out=true"

func (w *world) seeMore(ctx context.Context, l *look) error {
	for _, name := range w.names {
		var err error
		if l.ring[name], err = w.seeRing(ctx, w.apps[name]); err != nil {
			return fmt.Errorf("connect to %s: %w", name, err)
		}
		out, err := w.c.Exec(ctx, "unitgen", "doctor", name)
		if err != nil {
			return err
		}
		if out.Status != 0 {
			l.doctor[name] = strings.TrimSpace(out.Stdout + out.Stderr)
		}
	}
	args := []string{"journalctl", "--quiet", "--no-pager", "--boot", "--grep=" + forbidden}
	for _, name := range w.names {
		args = append(args, "--unit="+w.apps[name].shim())
	}
	out, err := w.c.Exec(ctx, args...)
	l.log = out.Stdout
	return err
}

// seeRing makes connection after connection until each instance has answered, or it is plain that
// one does not. They stay open until then: where the least connections count, an instance that has
// many gets the next ones later.
func (w *world) seeRing(ctx context.Context, a *app) (map[string]int, error) {
	answers := map[string]int{}
	const most = 20 * instances
	for n := 0; n < most && len(answers) < instances; n++ {
		pid, hangUp, err := w.ask(ctx, a)
		defer hangUp()
		if err != nil && !a.hostile {
			return nil, err
		}
		if err == nil {
			answers[pid]++
		}
	}
	return answers, nil
}

// ask makes a fresh connection and returns the process that answers. The caller hangs up.
func (w *world) ask(ctx context.Context, a *app) (pid string, hangUp func(), err error) {
	if a.http2 {
		t := newHTTP2(w)
		pid, err = answerOf((&http.Client{Transport: t, Timeout: requestLimit}).Get("http://" + a.addr() + "/"))
		return pid, t.CloseIdleConnections, err
	}
	conn, err := w.c.DialContext(ctx, "tcp", a.addr())
	if err != nil {
		return "", func() {}, err
	}
	hangUp = func() { conn.Close() }
	if err := conn.SetDeadline(time.Now().Add(requestLimit)); err != nil {
		return "", hangUp, err
	}
	if _, err := io.WriteString(conn, "GET / HTTP/1.1\r\nHost: chaos\r\n\r\n"); err != nil {
		return "", hangUp, err
	}
	pid, err = answerOf(http.ReadResponse(bufio.NewReader(conn), nil))
	return pid, hangUp, err
}

func answerOf(resp *http.Response, err error) (pid string, _ error) {
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		return "", err
	}
	_, pid, err = parseAnswer(string(body))
	return pid, err
}

// settleLimit is how long the system may take to be as it was: a drain, a start time-out and the
// longest back-off.
const settleLimit = 120 * time.Second

// settle looks until all invariants hold, and returns that look. The error at the limit is what
// does not hold. awaited is what did not hold before that, as long as something did not.
func (w *world) settle(ctx context.Context) (l *look, awaited string, err error) {
	for end := time.Now().Add(settleLimit); ; {
		if l, err = w.see(ctx, false); err == nil {
			err = w.judge(l, false)
		}
		if err == nil {
			if l, err = w.see(ctx, true); err == nil {
				err = w.judge(l, true)
			}
		}
		if err == nil || errors.As(err, new(final)) || time.Now().After(end) {
			return l, awaited, err
		}
		awaited = strings.ReplaceAll(err.Error(), "\n", "; ")
		if !pause(ctx, 300*time.Millisecond) {
			return l, awaited, errors.Join(err, ctx.Err())
		}
	}
}
