package main

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"

	"golang.org/x/sys/unix"

	"github.com/unitgen/unitgen/activation"
	"github.com/unitgen/unitgen/internal/balance"
	"github.com/unitgen/unitgen/internal/handoff"
	"github.com/unitgen/unitgen/internal/steer"
)

// Arguments that make the bench program the balancer or an instance of the handoff path, on
// descriptors from 3 on.
const (
	handOffArg = "hand-off-from-descriptor-3" // with the strategy as another argument; the channels follow the listener
	handedArg  = "be-handed-on-descriptor-3"
)

func startHandoff(ctx context.Context) (*target, error) {
	return startHanded(ctx, "unitgen, handoff", balance.LeastConnections)
}

// startHandoffHash is the strategy for which the balancer accepts and sends descriptors. There is
// one client address, so one instance serves all.
func startHandoffHash(ctx context.Context) (*target, error) {
	return startHanded(ctx, "unitgen, handoff, source-hash", balance.SourceHash)
}

func startHanded(ctx context.Context, name string, s balance.Strategy) (*target, error) {
	t := &target{name: name}
	port, err := freePort()
	if err != nil {
		return t, err
	}
	t.address = "127.0.0.1:" + strconv.Itoa(port)
	public, err := t.listen(t.address)
	if err != nil {
		return t, err
	}
	if err := unix.SetNonblock(public, true); err != nil {
		return t, os.NewSyscallError("fcntl", err)
	}
	dir, err := os.MkdirTemp("", "bench")
	if err != nil {
		return t, err
	}
	t.onStop(func() { os.RemoveAll(dir) })
	descriptors := []int{public}
	for i := range instances {
		address := &net.UnixAddr{Name: filepath.Join(dir, strconv.Itoa(i)), Net: "unixpacket"}
		channel, err := t.handedInstance(ctx, address)
		if err != nil {
			return t, err
		}
		descriptors = append(descriptors, channel)
	}
	c, err := t.self(ctx, descriptors, handOffArg, string(s))
	if err != nil {
		return t, err
	}
	t.balancer = []int{c.Process.Pid}
	return t, nil
}

// handedInstance starts an instance that listens at address for its channel, and returns the
// channel.
func (t *target) handedInstance(ctx context.Context, address *net.UnixAddr) (channel int, err error) {
	ln, err := net.ListenUnix("unixpacket", address)
	if err != nil {
		return -1, err
	}
	t.onStop(func() { ln.Close() })
	file, err := ln.File()
	if err != nil {
		return -1, err
	}
	defer file.Close()
	if _, err := t.self(ctx, []int{int(file.Fd())}, handedArg); err != nil {
		return -1, err
	}
	if channel, err = unix.Socket(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0); err != nil {
		return -1, os.NewSyscallError("socket", err)
	}
	t.onStop(func() { unix.Close(channel) })
	return channel, os.NewSyscallError("connect", unix.Connect(channel, &unix.SockaddrUnix{Name: address.Name}))
}

// self starts this program with duplicates of fds as its descriptors from 3 on.
func (t *target) self(ctx context.Context, fds []int, args ...string) (*exec.Cmd, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	c := exec.CommandContext(ctx, self, args...)
	c.Stderr = os.Stderr
	if args[0] == handedArg {
		c.Env = append(os.Environ(), oneThread)
	}
	for _, fd := range fds {
		dup, err := unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 0)
		if err != nil {
			return nil, os.NewSyscallError("fcntl", err)
		}
		file := os.NewFile(uintptr(dup), "passed")
		defer file.Close()
		c.ExtraFiles = append(c.ExtraFiles, file)
	}
	return c, t.start(c)
}

// handOff is what lbshim does on the handoff path.
func handOff(s balance.Strategy) error {
	d, err := handoff.New(handoff.Options{
		Listeners: []int{3}, Log: slog.Default(),
		Waiting: waiting,
	})
	if err != nil {
		return err
	}
	var ring []uint16
	for id := 1; id <= instances; id++ {
		if err := d.Attach(id, 3+id); err != nil {
			return err
		}
		ring = append(ring, uint16(id))
	}
	d.SetRing(s, ring)
	return d.Run(context.Background())
}

// waiting counts the connections that wait at a TCP listener.
func waiting(fd int) (n int, exact bool, err error) {
	n, _, err = steer.Queue(fd)
	return n, true, err
}

// handed returns the listener of an instance on the handoff path.
func handed() (net.Listener, error) {
	passed := map[string]string{"LISTEN_PID": "1", "LISTEN_FDS": "1", "LISTEN_FDNAMES": activation.HandoffName}
	descriptors, err := activation.Env{
		Lookup: func(key string) (string, bool) { value, ok := passed[key]; return value, ok },
		Unset:  func(string) error { return nil }, PID: 1,
	}.Inherit()
	if err != nil {
		return nil, err
	}
	listeners, err := descriptors.AllListeners()
	if err != nil {
		return nil, fmt.Errorf("take listener: %w", err)
	}
	return listeners[0], nil
}

// passedListener returns the listener of an instance that has one of its own.
func passedListener() (net.Listener, error) {
	file := os.NewFile(3, "listener")
	defer file.Close()
	ln, err := net.FileListener(file)
	if err != nil {
		return nil, fmt.Errorf("take listener: %w", err)
	}
	return ln, nil
}
