package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"strconv"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/unitgen/unitgen/internal/steer"
)

// target is an address with what serves it. It owns its processes, listeners and files until stop.
type target struct {
	name      string
	address   string
	protocol  string // "redis"; HTTP else
	balancer  []int  // processes whose CPU counts as the balancer's
	instances []int  // those that answer, once warm
	cleanup   []func()
}

func (t *target) onStop(f func()) { t.cleanup = append(t.cleanup, f) }

func (t *target) stop() {
	for i := len(t.cleanup) - 1; i >= 0; i-- {
		t.cleanup[i]()
	}
}

// warmUp loads the target until its instances are known, and have compiled what they run.
func (t *target) warmUp(ctx context.Context) error {
	a, err := t.load(ctx, measure{mode: "conn", connections: 64}, 500*time.Millisecond)
	if err != nil {
		return err
	}
	if len(a.Answers) == 0 {
		return fmt.Errorf("no answer, %d requests failed", a.Failed)
	}
	for answer := range a.Answers {
		pid, err := strconv.Atoi(answer)
		if err != nil {
			return fmt.Errorf("parse answer: %w", err)
		}
		t.instances = append(t.instances, pid)
	}
	return nil
}

func startDirect(ctx context.Context) (*target, error) {
	t := &target{name: "one instance, direct"}
	_, err := t.group(ctx, 1, t.instance)
	return t, err
}

// startDirectAgain is the same once more.
func startDirectAgain(ctx context.Context) (*target, error) {
	t, err := startDirect(ctx)
	t.name += ", again"
	return t, err
}

func startHash(ctx context.Context) (*target, error) {
	t := &target{name: "the kernel's SO_REUSEPORT hash"}
	_, err := t.group(ctx, instances, t.instance)
	return t, err
}

// startSteer is what lbshim does. It has no process on the path, so there is no CPU to count.
func startSteer(ctx context.Context) (*target, error) {
	t := &target{name: "unitgen, steer"}
	fds, err := t.group(ctx, instances, t.instance)
	if err != nil {
		return t, err
	}
	return t, t.steer(fds)
}

// steer spreads connections to the target's address over listeners.
func (t *target) steer(fds []int) error {
	return t.steerEach(fds, func() error { return nil })
}

// steerEach is steer after a call of each while connections go to one listener alone, one listener
// after another.
func (t *target) steerEach(fds []int, each func() error) error {
	parking, err := t.listen(t.address)
	if err != nil {
		return err
	}
	g, err := steer.New(parking, func(steer.Maps) error { return nil })
	if err != nil {
		return err
	}
	t.onStop(func() { g.Close() })
	var ring []uint16
	for i, fd := range fds {
		if err := g.Put(i+1, fd); err != nil {
			return err
		}
		if err := errors.Join(g.SetRing([]uint16{uint16(i + 1)}), each()); err != nil {
			return err
		}
		ring = append(ring, uint16(i+1))
	}
	return g.SetRing(ring)
}

// group starts n instances with a listener each on one free port, and returns the listeners.
func (t *target) group(ctx context.Context, n int, instance func(context.Context, int) error) ([]int, error) {
	port, err := freePort()
	if err != nil {
		return nil, err
	}
	t.address = "127.0.0.1:" + strconv.Itoa(port)
	var fds []int
	for range n {
		fd, err := t.listen(t.address)
		if err != nil {
			return nil, err
		}
		if err := instance(ctx, fd); err != nil {
			return nil, err
		}
		fds = append(fds, fd)
	}
	return fds, nil
}

func (t *target) listen(address string) (int, error) {
	a, err := net.ResolveTCPAddr("tcp4", address)
	if err != nil {
		return -1, err
	}
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, unix.IPPROTO_TCP)
	if err != nil {
		return -1, os.NewSyscallError("socket", err)
	}
	t.onStop(func() { unix.Close(fd) })
	if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEPORT, 1); err != nil {
		return -1, os.NewSyscallError("setsockopt SO_REUSEPORT", err)
	}
	if err := unix.Bind(fd, &unix.SockaddrInet4{Port: a.Port, Addr: [4]byte(a.IP.To4())}); err != nil {
		return -1, fmt.Errorf("bind %s: %w", address, err)
	}
	return fd, os.NewSyscallError("listen", unix.Listen(fd, 4096))
}

// instance starts the C server as an instance on a listener, which it borrows.
func (t *target) instance(ctx context.Context, listener int) error {
	return t.withListener(listener, exec.CommandContext(ctx, serverProgram, "fd:3"))
}

// withListener starts a command with a duplicate of a listener as its descriptor 3.
func (t *target) withListener(listener int, c *exec.Cmd) error {
	fd, err := unix.FcntlInt(uintptr(listener), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return os.NewSyscallError("fcntl", err)
	}
	file := os.NewFile(uintptr(fd), "listener")
	defer file.Close()
	c.ExtraFiles, c.Stderr = []*os.File{file}, os.Stderr
	return t.start(c)
}

// start starts a process that ends with the target, and with this one, whose main thread started it
// (see main). It is asked to end: nginx is several processes, of which the first ends the others.
func (t *target) start(c *exec.Cmd) error {
	c.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGTERM}
	if err := c.Start(); err != nil {
		return err
	}
	t.onStop(func() {
		c.Process.Signal(syscall.SIGTERM)
		late := time.AfterFunc(5*time.Second, func() { c.Process.Kill() })
		c.Wait()
		late.Stop()
	})
	return nil
}

func freePort() (int, error) {
	ln, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		return 0, err
	}
	defer ln.Close()
	return ln.Addr().(*net.TCPAddr).Port, nil
}
