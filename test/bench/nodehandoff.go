package main

import (
	"context"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"time"

	"golang.org/x/sys/unix"

	"github.com/unitgen/unitgen/internal/balance"
	"github.com/unitgen/unitgen/internal/handoff"
	"github.com/unitgen/unitgen/internal/handoff/receiver"
	"github.com/unitgen/unitgen/internal/nodecluster"
	"github.com/unitgen/unitgen/test/rig"
)

// nodeHandOffArg makes the bench program the balancer of Node.js programs that it gives connections
// to: the listener is descriptor 3, the channels follow.
const nodeHandOffArg = "hand-off-to-nodes"

// startNodeHandoff does what lbshim does where it cannot steer: a balancer gives each connection to
// a worker, as the primary of Node's own cluster does.
func startNodeHandoff(ctx context.Context) (*target, error) {
	t := &target{name: "unitgen, handoff"}
	dir, environ, err := t.nodeDir()
	if err != nil {
		return t, err
	}
	public, err := t.listen(t.address)
	if err != nil {
		return t, err
	}
	if err := unix.SetNonblock(public, true); err != nil {
		return t, os.NewSyscallError("fcntl", err)
	}
	descriptors := []int{public}
	for i := range instances {
		channel, err := t.nodeWorker(ctx, i+1, dir, environ)
		if err != nil {
			return t, err
		}
		t.onStop(func() { unix.Close(channel) })
		descriptors = append(descriptors, channel)
	}
	c, err := t.self(ctx, descriptors, nodeHandOffArg)
	if err != nil {
		return t, err
	}
	t.balancer = []int{c.Process.Pid}
	return t, t.awaitAll(ctx)
}

// nodeWorker starts the program as a worker of a cluster, and returns the other end of its channel,
// which is the caller's.
func (t *target) nodeWorker(ctx context.Context, number int, dir string, environ []string) (channel int, err error) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return -1, os.NewSyscallError("socketpair", err)
	}
	theirs := os.NewFile(uintptr(fds[1]), "channel")
	defer theirs.Close()
	root, err := rig.RepoRoot()
	if err == nil {
		c := exec.CommandContext(ctx, "node", "server.js")
		c.Dir, c.Stderr, c.ExtraFiles = dir, os.Stderr, []*os.File{theirs}
		c.Env = append(environ, "NODE_CHANNEL_FD=3", "NODE_CHANNEL_SERIALIZATION_MODE=json", "NODE_UNIQUE_ID="+strconv.Itoa(number),
			"NODE_OPTIONS=--require="+filepath.Join(root, "packaging/node/drain.cjs"))
		err = t.start(c)
	}
	if err != nil {
		unix.Close(fds[0])
		return -1, err
	}
	return fds[0], nil
}

// awaitAll returns when every instance has answered.
func (t *target) awaitAll(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 20*time.Second)
	defer cancel()
	for {
		a, err := t.load(ctx, measure{mode: "conn", connections: instances}, 200*time.Millisecond)
		if err != nil || len(a.Answers) == instances {
			return err
		}
		if ctx.Err() != nil {
			return fmt.Errorf("wait for %s: %d of %d instances answer", t.name, len(a.Answers), instances)
		}
	}
}

// nodeReceiver is a worker that connections are given to.
type nodeReceiver struct {
	*nodecluster.Channel
	key    []byte
	others chan nodecluster.Message // that are not about connections
}

// Give is of receiver.Receiver.
func (r *nodeReceiver) Give(_, fd int) (number uint64, ok bool) {
	number, err := r.Hand(r.key, fd)
	return number, err == nil
}

// Ask is of receiver.Receiver.
func (r *nodeReceiver) Ask(token int) { r.Order(nodecluster.AskReport(token)) }

// Hear is of receiver.Receiver.
func (r *nodeReceiver) Hear(said []receiver.Said) ([]receiver.Said, bool) {
	more := r.Channel.Hear(func(m nodecluster.Message, err error) bool {
		switch {
		case err != nil:
			slog.Error("worker has left", "error", err)
		case m.Kind == nodecluster.Answered:
			said = append(said, receiver.Said{Number: m.Ack, Taken: m.Taken})
		case m.Kind == nodecluster.Report:
			said = append(said, receiver.Said{Report: true, Token: m.Token, Open: m.Open, Busy: m.Busy})
		case m.Kind != nodecluster.HandleAck:
			r.others <- m
		}
		return true
	})
	return said, more
}

// maxOthers is more than a worker says before it listens.
const maxOthers = 16

// handOffToNodes is what lbshim does for programs for Node.js on the handoff path.
func handOffToNodes() error {
	d, err := handoff.New(handoff.Options{
		Listeners: []int{3}, Receivers: true, Log: slog.Default(),
		Waiting: waiting,
	})
	if err != nil {
		return err
	}
	var ring []uint16
	for id := 1; id <= instances; id++ {
		channel, err := nodecluster.NewChannel(3+id, 0)
		if err != nil {
			return err
		}
		r := &nodeReceiver{Channel: channel, others: make(chan nodecluster.Message, maxOthers)}
		go r.Write(nil) // ends with the channel
		if err := d.AttachReceiver(id, r, true); err != nil {
			return err
		}
		go r.serve(d, id)
		ring = append(ring, uint16(id))
	}
	d.SetRing(balance.LeastConnections, ring)
	return d.Run(context.Background())
}

// serve promises a worker the connections of its port.
func (r *nodeReceiver) serve(d *handoff.Dispatcher, id int) {
	for m := range r.others {
		switch m.Kind {
		case nodecluster.Ask:
			r.key = nodecluster.QuoteKey("bench")
			local := netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, 0, 1}), uint16(m.Asked.Port))
			r.Send(nodecluster.Promise(m, "bench", m.Data, nodecluster.Address{TCP: local}))
		case nodecluster.Listening:
			d.Serving(id, r, true)
		}
	}
}
