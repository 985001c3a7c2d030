package shim

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
)

// Names in the FD store: the channel of each Node process, and what the shim knows of them all.
const (
	storedChannel = "channel@" // and the instance's number
	storedNodes   = "nodes+"   // and 0 or 1: see saveNodes
)

// nodesState is what the next shim needs to know of Node processes: the channels themselves do not tell.
type nodesState struct {
	Saved   int                        `json:"saved"`          // counts up
	Keys    []byte                     `json:"keys,omitempty"` // on the steer path: of all TLS servers' session tickets
	Ready   []int                      `json:"ready,omitempty"`
	Tickets nodecluster.Tickets        `json:"tickets,omitempty"`
	Workers map[int]nodecluster.Worker `json:"workers,omitempty"`
}

// maxNodesState bounds what is read back: 512 instances with their servers have some 100 kB.
const maxNodesState = 4 << 20

// saveNodes puts the state into the FD store, in a memfd of its own each time, as a shim may be killed while it writes:
// the new one is stored before the old one is removed, under two names in turn. It happens when a process starts to
// listen, closes or ends, and not where nothing has changed: each time costs PID 1 two messages.
func (s *Shim) saveNodes() {
	state := nodesState{Keys: s.nodes.keys, Tickets: s.nodes.tickets, Workers: make(map[int]nodecluster.Worker)}
	for number, in := range s.instances {
		if !s.attached(in) {
			continue
		}
		if s.receives() && !in.node.unknown {
			state.Workers[number] = in.node.worker
		}
		if in.node.ready {
			state.Ready = append(state.Ready, number)
		}
	}
	slices.Sort(state.Ready)
	text, err := json.Marshal(state)
	if err == nil && bytes.Equal(text, s.nodes.savedLast) {
		return
	}
	s.nodes.saved++
	state.Saved = s.nodes.saved
	if err == nil {
		err = s.storeNodes(state)
	}
	if err != nil {
		s.log.Warn("save state of Node processes, ignoring", "error", err)
		return
	}
	s.nodes.savedLast = text
}

func (s *Shim) storeNodes(state nodesState) error {
	if !s.notify.Enabled() {
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
	if err := s.notify.StoreFilesUnpolled(storedNodes+strconv.Itoa(state.Saved%2), fd); err != nil {
		return err
	}
	return s.notify.RemoveStored(storedNodes + strconv.Itoa((state.Saved+1)%2))
}

// takeNodes takes what concerns Node processes out of stored: their channels by instance, and the newest state.
func (s *Shim) takeNodes(stored map[string][]int) (channels map[int]int, state nodesState) {
	channels = make(map[int]int)
	for name, fds := range stored {
		switch {
		case strings.HasPrefix(name, storedNodes):
			for _, fd := range fds {
				found, err := readNodes(fd)
				if err != nil {
					s.log.Warn("read state of Node processes, ignoring", "error", err)
				} else if found.Saved > state.Saved {
					state = found
				}
			}
		case strings.HasPrefix(name, storedChannel):
			number, ok := app.ParseInstance(strings.TrimPrefix(name, storedChannel))
			if !ok || len(fds) != 1 {
				closeAll(fds)
			} else {
				channels[number] = fds[0]
			}
		default:
			continue
		}
		delete(stored, name)
	}
	return channels, state
}

// readNodes reads a saved state and closes it.
func readNodes(fd int) (state nodesState, err error) {
	file := os.NewFile(uintptr(fd), "nodes")
	defer file.Close()
	text, err := io.ReadAll(io.NewSectionReader(file, 0, maxNodesState))
	if err != nil {
		return state, err
	}
	if err := json.Unmarshal(text, &state); err != nil {
		return state, fmt.Errorf("parse: %w", err)
	}
	return state, nil
}

// adoptNodes gives the instances the channels that an earlier shim stored, and returns those to speak on.
func (s *Shim) adoptNodes(channels map[int]int, state nodesState) []*nodeChannel {
	s.nodes.saved, s.nodes.keys = state.Saved, state.Keys
	if state.Tickets != nil {
		s.nodes.tickets = state.Tickets
	}
	var adopted []*nodeChannel
	for number, fd := range channels {
		worker, known := state.Workers[number]
		// Each save of the state has at most one new message or so; the numbers are far apart all the same.
		channel, err := s.adoptChannel(number, fd, uint64(state.Saved+1)<<20)
		if err != nil {
			s.log.Warn("adopt channel, ignoring", "instance", number, "error", err)
			continue
		}
		in := s.instances[number]
		in.node = &node{channel: channel, ready: slices.Contains(state.Ready, number), worker: worker, unknown: !known}
		s.askPreload(in.node)
		if s.receives() {
			if !known {
				s.log.Warn("it is not known what the program serves, it gets no connections until it is restarted", "instance", number)
			}
			s.serving(in)
		}
		adopted = append(adopted, channel)
	}
	if len(adopted) > 0 {
		s.log.Info("channels to Node processes are kept", "instances", len(adopted))
	}
	return adopted
}

// adoptChannel makes a channel of a descriptor, which it takes over.
func (s *Shim) adoptChannel(number, fd int, firstSeq uint64) (*nodeChannel, error) {
	if s.instances[number] == nil {
		unix.Close(fd)
		return nil, fmt.Errorf("instance %d has no listener", number)
	}
	opened, err := nodecluster.NewChannel(fd, firstSeq)
	if err != nil {
		return nil, err
	}
	channel := s.newNodeChannel(number, opened)
	if s.receives() {
		if err := s.handoff.AttachReceiver(number, channel, false); err != nil {
			channel.Close()
			return nil, err
		}
	}
	return channel, nil
}
