package main

import (
	"bytes"
	"context"
	"debug/elf"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/unitgen/unitgen/internal/app"
	"github.com/unitgen/unitgen/internal/control"
	"github.com/unitgen/unitgen/internal/shim"
	"github.com/unitgen/unitgen/internal/systemd"
)

// settleTime is how long a connection that was opened just before the drain has to ask, at programs that close those that
// have not asked yet: two round trips of a handshake to a far client.
const settleTime = time.Second

// hangLimit is WatchdogSec= of the shim: PID 1 has replaced one that hangs by then.
const hangLimit = 30 * time.Second

// drain waits until the shim says that the instance may be told to stop, or that time is up. Where no shim will answer,
// there is nothing to wait for. PID 1 bounds it: TimeoutStopSec= of the instance.
func drain(ctx context.Context, e *env, o options) error {
	if e.getenv("EXIT_CODE") != "" {
		return nil // the program has ended by itself, and with success: PID 1 runs ExecStop= then too
	}
	p, err := drainParameters(ctx, e, o)
	if err != nil {
		return err
	}
	began := time.Now()
	err = control.Retry(ctx, func() error {
		if there, err := shimAnswers(ctx, e, o); err != nil || !there {
			return err
		}
		err := drainOnce(ctx, e, o, p)
		if errors.Is(err, control.ErrNoAnswer) && time.Since(began) > hangLimit {
			return errors.New("the balancer hangs") // the end of retries
		}
		return err
	})
	if err != nil {
		return fmt.Errorf("drain instance %d: %w", o.instance, err)
	}
	return nil
}

// drainParameters finds out what the program does on its stop signal, unless --shutdown= says it.
func drainParameters(ctx context.Context, e *env, o options) (shim.DrainParameters, error) {
	p := shim.DrainParameters{Instance: o.instance, Settle: settleTime}
	switch app.Shutdown(o.shutdown) {
	case app.ShutdownGraceful:
		p.Graceful = true
	case app.ShutdownQuick:
		return p, nil
	case "":
	default:
		return p, usageError("--shutdown= must be graceful or quick, got %q", o.shutdown)
	}
	serves, err := runsServe(ctx, e, o)
	if err != nil {
		e.log.Warn("find out whether the program shuts down gracefully, ignoring", "instance", o.instance, "error", err)
	}
	if serves {
		p.Graceful, p.Settle = true, 0
	}
	return p, nil
}

func drainOnce(ctx context.Context, e *env, o options, p shim.DrainParameters) error {
	client, err := control.Dial(ctx, o.controlPath(e))
	if err != nil {
		return err
	}
	defer client.Close()
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	silent := time.AfterFunc(control.AnswerTimeout, func() { cancel(control.ErrNoAnswer) })
	defer silent.Stop()
	return client.Stream(ctx, "Drain", p, func(json.RawMessage) error {
		silent.Stop()
		return nil
	})
}

// runsServe says whether the instance is a program in Go that gets its stop signal as activation.StopSignal wants it and
// has activation.Serve in it, which shuts down gracefully and gives new connections time to ask.
func runsServe(ctx context.Context, e *env, o options) (bool, error) {
	pid := e.getenv("MAINPID")
	if pid == "" {
		return false, nil // it has ended
	}
	conn, err := systemd.Dial(ctx, o.endpoint(e))
	if err != nil {
		return false, err
	}
	defer conn.Close()
	number, err := conn.KillSignal(ctx, o.app.Instance(o.instance))
	if err != nil || number != int(unix.SIGTERM) && number != int(unix.SIGINT) {
		return false, err
	}
	return hasServe(pid)
}

// hasServe looks for activation.Serve in the program of a process. The linker leaves out functions that nothing calls, and
// names those that are left in a section of its own, which "strip" does not touch.
func hasServe(pid string) (bool, error) {
	f, err := os.Open("/proc/" + pid + "/exe")
	if errors.Is(err, os.ErrNotExist) {
		return false, nil // it has ended
	}
	if err != nil {
		return false, err
	}
	defer f.Close()
	program, err := elf.NewFile(f)
	if err != nil {
		return false, err
	}
	for _, section := range program.Sections {
		if strings.HasSuffix(section.Name, ".gopclntab") { // .data.rel.ro.gopclntab where the program is position-independent
			return contains(section.Open(), "\x00github.com/unitgen/unitgen/activation.Serve\x00")
		}
	}
	return false, nil
}

// contains says whether f has text in it, without holding more than a piece of it.
func contains(f io.Reader, text string) (bool, error) {
	buf := make([]byte, 64<<10)
	kept := 0 // bytes of the piece before, with which text may begin
	for {
		n, err := io.ReadFull(f, buf[kept:])
		if bytes.Contains(buf[:kept+n], []byte(text)) {
			return true, nil
		}
		if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
			return false, nil
		}
		if err != nil {
			return false, err
		}
		kept = copy(buf, buf[len(buf)-len(text)+1:])
	}
}
