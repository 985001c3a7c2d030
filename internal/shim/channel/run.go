package channel

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/unitgen/unitgen/internal/nodecluster"
)

// maxStrangers bounds the processes at a time whose unit is being asked for: everybody on the host
// may connect to the channel socket. Further ones wait in its backlog.
const maxStrangers = 64

// Run speaks with the programs, those adopted and those that come, until ctx ends. It fails when no
// more can come.
func (c *Channels) Run(ctx context.Context) error {
	var sessions sync.WaitGroup
	defer sessions.Wait()
	for _, channel := range c.adopted {
		sessions.Go(func() { c.converse(ctx, channel) })
	}
	ln := c.options.Listener
	if ln == nil {
		return nil
	}
	ln.SetUnlinkOnClose(false) // the path is PID 1's
	stop := context.AfterFunc(ctx, func() { ln.Close() })
	defer stop()
	strangers := make(chan struct{}, maxStrangers)
	admission := newAdmission()
	for {
		strangers <- struct{}{}
		conn, err := ln.AcceptUnix()
		if err != nil {
			if ctx.Err() != nil {
				return nil
			}
			return fmt.Errorf("accept channel: %w", err)
		}
		if err := admission.admit(conn, time.Now()); err != nil {
			c.strangers.Warn("channel refused", "error", err)
			conn.Close() // one that is not greeted tries again
			<-strangers
			continue
		}
		sessions.Go(func() {
			channel, err := c.admit(ctx, conn)
			conn.Close()
			<-strangers
			if err != nil {
				c.strangers.Warn("channel refused", "error", err)
				return
			}
			c.converse(ctx, channel)
		})
	}
}

// admit makes a channel of a connection if an instance's main process has made it. It greets the
// peer or tells it why not. The connection stays the caller's: the channel has a duplicate.
func (c *Channels) admit(ctx context.Context, conn *net.UnixConn) (*conn, error) {
	number, err := c.whoIs(ctx, conn)
	var refused *stranger
	if err != nil && !errors.As(err, &refused) {
		return nil, err // a peer that is not greeted tries again
	}
	if err != nil {
		// No more than that: the peer may be anybody.
		return nil, errors.Join(err, nodecluster.Greet(conn, nodecluster.Greeting{Error: "only an instance's main process may connect"}))
	}
	channel, err := c.channelOf(conn, number)
	if err == nil {
		if err = c.run(ctx, func() error { return c.attach(channel) }); err != nil {
			channel.Close()
		}
	}
	if err != nil {
		return nil, errors.Join(err, nodecluster.Greet(conn, nodecluster.Greeting{Error: err.Error()}))
	}
	if err := nodecluster.Greet(conn, nodecluster.Greeting{Instance: number}); err != nil {
		c.options.Do(ctx, func() { c.ended(channel) })
		channel.Close()
		return nil, err
	}
	return channel, nil
}

func (c *Channels) channelOf(conn *net.UnixConn, number int) (*conn, error) {
	raw, err := conn.SyscallConn()
	if err != nil {
		return nil, err
	}
	var fd int
	controlErr := raw.Control(func(of uintptr) { fd, err = duplicate(int(of)) })
	if err = errors.Join(controlErr, err); err != nil {
		return nil, err
	}
	channel, err := nodecluster.NewChannel(fd, 0)
	if err != nil {
		return nil, err
	}
	return c.newConn(number, channel), nil
}

// attach makes channel that of its instance and puts a duplicate into the FD store: if the shim
// dies, the program does not see its channel end.
func (c *Channels) attach(channel *conn) error {
	number := channel.instance
	in := c.instances[number]
	if in == nil {
		return fmt.Errorf("instance %d has not joined", number)
	}
	if in.reachable() {
		in.program.channel.Close()
	}
	c.removeChannel(number)
	if err := channel.Descriptor(func(fd int) error { return c.store.PutPolled(channelStoreName(number), fd) }); err != nil {
		return err
	}
	if err := c.receive(channel, true); err != nil {
		c.removeChannel(number)
		return err
	}
	in.program, in.refused = &program{channel: channel}, ""
	c.askPreload(in.program)
	c.shareTickets(in.program)
	c.programChanged(in)
	return nil
}

// Attach makes a socket, which it takes over, the channel of an instance's program. The caller then
// runs speak, which serves the program until the channel or ctx ends.
func (c *Channels) Attach(number, fd int) (speak func(ctx context.Context), err error) {
	opened, err := nodecluster.NewChannel(fd, 0)
	if err != nil {
		return nil, err
	}
	channel := c.newConn(number, opened)
	if err := c.attach(channel); err != nil {
		channel.Close()
		return nil, err
	}
	return func(ctx context.Context) { c.converse(ctx, channel) }, nil
}

// converse reads and writes a channel until it or ctx ends. It owns the channel.
func (c *Channels) converse(ctx context.Context, channel *conn) {
	number := channel.instance
	stop := context.AfterFunc(ctx, func() { channel.Close() })
	defer stop()
	done := make(chan struct{})
	var writer sync.WaitGroup
	writer.Go(func() {
		if err := channel.Write(done); err != nil && ctx.Err() == nil {
			c.log.Warn("channel fails, its process ends", "instance", number, "error", err)
			channel.Close()
		}
	})
	carrying, stopCarrying := context.WithCancel(ctx)
	writer.Go(func() {
		if err := channel.Carry(carrying); err != nil {
			c.log.Warn("messages to program cannot be sent", "instance", number, "error", err)
		}
	})
	defer func() {
		close(done)
		stopCarrying()
		channel.Close()
		writer.Wait()
	}()
	c.hear(ctx, channel)
	c.options.Do(ctx, func() { c.ended(channel) })
}

// duplicate returns a duplicate of a listener that does not block.
func duplicate(fd int) (int, error) {
	dup, err := unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return -1, os.NewSyscallError("fcntl", err)
	}
	if err := unix.SetNonblock(dup, true); err != nil {
		unix.Close(dup)
		return -1, os.NewSyscallError("fcntl", err)
	}
	return dup, nil
}
