package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/unitgen/unitgen/internal/steer"
)

// target is an address with what serves it. It owns its processes, listeners and files until stop.
type target struct {
	name      string
	address   string
	balancer  []int // processes whose CPU counts as the balancer's
	instances []int // those that answer, once warm
	cleanup   []func()
}

func (t *target) onStop(f func()) { t.cleanup = append(t.cleanup, f) }

func (t *target) stop() {
	for i := len(t.cleanup) - 1; i >= 0; i-- {
		t.cleanup[i]()
	}
}

func stopAll(targets []*target) {
	for _, t := range targets {
		t.stop()
	}
}

// warmUp loads the target until its instances are known, and have compiled what they run.
func (t *target) warmUp(ctx context.Context) error {
	r, err := load{span: 500 * time.Millisecond, clients: 32}.put(ctx, t.address)
	if err != nil {
		return err
	}
	for answer := range r.pids {
		pid, err := strconv.Atoi(strings.TrimSpace(strings.TrimPrefix(answer, pidAnswer)))
		if err != nil {
			return fmt.Errorf("parse answer %q: %w", answer, err)
		}
		t.instances = append(t.instances, pid)
	}
	return nil
}

// spent is CPU time.
type spent struct{ balancer, instances time.Duration }

func (t *target) cpu() (s spent, err error) {
	if s.balancer, err = cpuOf(t.balancer); err == nil {
		s.instances, err = cpuOf(t.instances)
	}
	return s, err
}

// cpuOf is the time that processes have spent on a processor: the first figure of schedstat, in ns, of every thread
// (Documentation/scheduler/sched-stats.rst).
func cpuOf(pids []int) (time.Duration, error) {
	var all time.Duration
	for _, pid := range pids {
		files, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/schedstat", pid))
		if err != nil || len(files) == 0 {
			return 0, fmt.Errorf("read CPU time of process %d: %w", pid, errors.Join(err, os.ErrNotExist))
		}
		for _, file := range files {
			text, err := os.ReadFile(file)
			if err != nil {
				continue // a thread that has ended; what it used is lost to all targets alike
			}
			ns, err := strconv.ParseInt(strings.Fields(string(text))[0], 10, 64)
			if err != nil {
				return 0, fmt.Errorf("parse %s: %w", file, err)
			}
			all += time.Duration(ns)
		}
	}
	return all, nil
}

// startTargets starts every target that can be had here; those that were started are returned also with an error.
func startTargets(ctx context.Context) ([]*target, error) {
	return start(ctx, startDirect, startHash, startSteer, startHandoff, startHandoffHash, startHAProxy, startNginx, startSocketProxy)
}

func start(ctx context.Context, starts ...func(context.Context) (*target, error)) ([]*target, error) {
	var targets []*target
	for _, start := range starts {
		t, err := start(ctx)
		if errors.Is(err, exec.ErrNotFound) {
			fmt.Println("left out:", err)
			continue
		}
		if t != nil {
			targets = append(targets, t)
		}
		if err != nil {
			return targets, err
		}
	}
	return targets, nil
}

func startDirect(ctx context.Context) (*target, error) {
	t := &target{name: "direct, 1 instance"}
	_, err := t.group(ctx, 1)
	return t, err
}

func startHash(ctx context.Context) (*target, error) {
	t := &target{name: "SO_REUSEPORT hash"}
	_, err := t.group(ctx, instances)
	return t, err
}

// startSteer is what lbshim does. It has no process on the path, so there is no CPU to count.
func startSteer(ctx context.Context) (*target, error) {
	t := &target{name: "steer"}
	fds, err := t.group(ctx, instances)
	if err != nil {
		return t, err
	}
	return t, t.steer(fds)
}

// steer spreads connections to the target's address over listeners.
func (t *target) steer(fds []int) error {
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
		ring = append(ring, uint16(i+1))
	}
	return g.SetRing(ring)
}

// group starts n instances with a listener each on one free port, and returns the listeners.
func (t *target) group(ctx context.Context, n int) ([]int, error) {
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
		if err := t.instance(ctx, fd); err != nil {
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

// oneThread in its environment makes an instance one thread's worth, as most programs' are.
const oneThread = "GOMAXPROCS=1"

// instance starts this program as an instance on a listener, which it borrows.
func (t *target) instance(ctx context.Context, listener int) error {
	fd, err := unix.FcntlInt(uintptr(listener), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return os.NewSyscallError("fcntl", err)
	}
	file := os.NewFile(uintptr(fd), "listener")
	defer file.Close()
	self, err := os.Executable()
	if err != nil {
		return err
	}
	c := exec.CommandContext(ctx, self, serveArg)
	c.ExtraFiles, c.Stderr = []*os.File{file}, os.Stderr
	c.Env = append(os.Environ(), oneThread)
	return t.start(c)
}

// start starts a process that ends with the target, and with this one, whose main thread started it (see main). It is asked
// to end: nginx is several processes, of which the first ends the others.
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
