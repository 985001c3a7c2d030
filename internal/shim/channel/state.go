package channel

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/unitgen/unitgen/internal/app"
	"github.com/unitgen/unitgen/internal/nodecluster"
	"github.com/unitgen/unitgen/internal/sock"
)

// Names in the FD store: the channel of each Node process, and what the shim knows of them all.
const (
	storedChannel = "channel@" // and the instance's number
	storedNodes   = "nodes+"   // and 0 or 1: see save
)

// savedState is the state of Node processes for the next shim, which cannot learn it from the
// channels.
type savedState struct {
	Saved   int                        `json:"saved"`          // counts up
	Keys    []byte                     `json:"keys,omitempty"` // on the steer path: of all TLS servers' session tickets
	Ready   []int                      `json:"ready,omitempty"`
	Tickets nodecluster.Tickets        `json:"tickets,omitempty"`
	Workers map[int]nodecluster.Worker `json:"workers,omitempty"`
}

// maxState bounds what is read back: 512 instances with their servers have some 100 kB.
const maxState = 4 << 20

// save puts the state into the FD store, in a new memfd each time, as a shim may be killed while it
// writes. The new memfd is stored before the old one is removed, under two names in turn. The shim
// saves when a process starts to listen, closes or ends, and not without a change, because each
// save costs PID 1 two messages.
func (c *Channels) save() {
	state := savedState{Keys: c.keys, Tickets: c.tickets, Workers: make(map[int]nodecluster.Worker)}
	for number, in := range c.instances {
		if !c.attached(in) {
			continue
		}
		if c.receives() && !in.program.unknown {
			state.Workers[number] = in.program.worker
		}
		if in.program.ready {
			state.Ready = append(state.Ready, number)
		}
	}
	slices.Sort(state.Ready)
	text, err := json.Marshal(state)
	if err == nil && bytes.Equal(text, c.savedLast) {
		return
	}
	c.saved++
	state.Saved = c.saved
	if err == nil {
		err = c.storeState(state)
	}
	if err != nil {
		c.log.Warn("save state of Node processes, ignoring", "error", err)
		return
	}
	c.savedLast = text
}

func (c *Channels) storeState(state savedState) error {
	if !c.store.Enabled() {
		return nil
	}
	text, err := json.Marshal(state)
	if err != nil {
		return err
	}
	fd, err := unix.MemfdCreate("nodes", unix.MFD_CLOEXEC)
	if err != nil {
		return os.NewSyscallError("memfd_create", err)
	}
	file := os.NewFile(uintptr(fd), "nodes")
	defer file.Close()
	if _, err := file.Write(text); err != nil {
		return err
	}
	if err := c.store.Put(storedNodes+strconv.Itoa(state.Saved%2), fd); err != nil {
		return err
	}
	return c.store.Remove(storedNodes + strconv.Itoa((state.Saved+1)%2))
}

// takeStored takes what concerns Node processes out of stored: their channels by instance, and the
// newest state.
func (c *Channels) takeStored() (channels map[int]int, state savedState) {
	channels = make(map[int]int)
	for _, name := range c.store.Names() {
		switch {
		case strings.HasPrefix(name, storedNodes):
			for _, fd := range c.store.Take(name) {
				found, err := readState(fd)
				if err != nil {
					c.log.Warn("read state of Node processes, ignoring", "error", err)
				} else if found.Saved > state.Saved {
					state = found
				}
			}
		case strings.HasPrefix(name, storedChannel):
			number, ok := app.ParseInstance(strings.TrimPrefix(name, storedChannel))
			if fds := c.store.Take(name); !ok || len(fds) != 1 {
				sock.CloseAll(fds)
			} else {
				channels[number] = fds[0]
			}
		}
	}
	return channels, state
}

// readState reads a saved state and closes it.
func readState(fd int) (state savedState, err error) {
	file := os.NewFile(uintptr(fd), "nodes")
	defer file.Close()
	text, err := io.ReadAll(io.NewSectionReader(file, 0, maxState))
	if err != nil {
		return state, err
	}
	if err := json.Unmarshal(text, &state); err != nil {
		return state, fmt.Errorf("parse: %w", err)
	}
	return state, nil
}

// Adopt gives the instances that have joined the channels that an earlier process has stored, and
// what that knew of their programs.
func (c *Channels) Adopt() {
	channels, state := c.takeStored()
	c.saved, c.keys = state.Saved, state.Keys
	if state.Tickets != nil {
		c.tickets = state.Tickets
	}
	for number, fd := range channels {
		worker, known := state.Workers[number]
		// Each save of the state has at most one new message or so; the numbers are far apart all
		// the same.
		channel, err := c.adoptChannel(number, fd, uint64(state.Saved+1)<<20)
		if err != nil {
			c.log.Warn("adopt channel, ignoring", "instance", number, "error", err)
			continue
		}
		in := c.instances[number]
		in.program = &program{channel: channel, ready: slices.Contains(state.Ready, number), worker: worker, unknown: !known}
		c.askPreload(in.program)
		if c.receives() {
			if !known {
				c.log.Warn("the program's servers are not known, it gets no connections until it is restarted", "instance", number)
			}
			c.serving(in)
		}
		c.adopted = append(c.adopted, channel)
	}
	if len(c.adopted) > 0 {
		c.log.Info("channels to Node processes are kept", "instances", len(c.adopted))
	}
}

// adoptChannel makes a channel of a descriptor, which it takes over.
func (c *Channels) adoptChannel(number, fd int, firstSeq uint64) (*conn, error) {
	if c.instances[number] == nil {
		unix.Close(fd)
		return nil, fmt.Errorf("instance %d has no listener", number)
	}
	opened, err := nodecluster.NewChannel(fd, firstSeq)
	if err != nil {
		return nil, err
	}
	channel := c.newConn(number, opened)
	if err := c.receive(channel, false); err != nil {
		channel.Close()
		return nil, err
	}
	return channel, nil
}
