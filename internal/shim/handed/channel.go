package handed

import (
	"context"
	"fmt"
	"os"

	"golang.org/x/sys/unix"

	"github.com/unitgen/unitgen/internal/control"
	"github.com/unitgen/unitgen/internal/handoff"
	"github.com/unitgen/unitgen/internal/handoff/receiver"
	"github.com/unitgen/unitgen/internal/shim/path"
	"github.com/unitgen/unitgen/internal/sock"
)

// Handle is of path.Path.
func (p *Path) Handle(ctx context.Context, loop path.Loop, r *control.Request) (any, error) {
	switch r.Method {
	case control.MethodConnect:
		return p.connect(ctx, loop, r)
	case control.MethodDeliver:
		return struct{}{}, p.deliver(r)
	}
	sock.CloseAll(r.FDs)
	switch r.Method {
	case control.MethodProbe:
		return nil, &control.Error{Name: control.ErrUnsupported, Reason: "a single instance cannot be tried on the handoff path"}
	case control.MethodAccepted:
		return control.Accepted{}, nil // nothing waits at an instance
	}
	return nil, path.NoMethod(r)
}

// connect answers method Connect: the descriptor beside it is a new channel to an instance that
// starts. It answers when PID 1 has a duplicate, so that a shim that is killed does not take the
// instance's way to get connections with it.
func (p *Path) connect(ctx context.Context, loop path.Loop, r *control.Request) (any, error) {
	var asked control.Instance
	err := r.Decode(&asked)
	if err == nil && len(r.FDs) != 1 {
		err = &control.Error{Name: control.ErrInvalid, Reason: fmt.Sprintf("%d descriptors, want one", len(r.FDs))}
	}
	if err != nil {
		sock.CloseAll(r.FDs)
		return nil, err
	}
	taken := false
	err = loop.Do(ctx, func() error { taken = true; return p.attach(asked.Instance, r.FDs[0]) })
	if !taken {
		sock.CloseAll(r.FDs)
	}
	if err == nil {
		err = p.store.Barrier(ctx)
	}
	return struct{}{}, err
}

// attach owns channel.
func (p *Path) attach(number, channel int) error {
	if p.members[number] == nil {
		unix.Close(channel)
		return path.NotJoined(number)
	}
	err := p.store.Remove(storeName(number))
	if err == nil {
		err = p.store.PutPolled(storeName(number), channel)
	}
	if err != nil {
		unix.Close(channel)
		return err
	}
	return p.dispatcher.Attach(number, channel)
}

// deliver answers method Deliver: the descriptor beside it is given to one instance as a
// connection, on the ring or not.
func (p *Path) deliver(r *control.Request) error {
	var asked control.Instance
	err := r.Decode(&asked)
	if err == nil && len(r.FDs) != 1 {
		err = &control.Error{Name: control.ErrInvalid, Reason: "one descriptor can be delivered, on the handoff path"}
	}
	if err == nil {
		err = os.NewSyscallError("fcntl", unix.SetNonblock(r.FDs[0], true))
	}
	if err != nil {
		sock.CloseAll(r.FDs)
		return err
	}
	if !p.dispatcher.Give(asked.Instance, r.FDs[0]) {
		return &control.Error{Name: control.ErrNoSuchInstance, Reason: fmt.Sprintf("instance %d receives no connections", asked.Instance)}
	}
	return nil
}

// Receive is of path.Receiving.
func (p *Path) Receive(number int, r receiver.Receiver, fresh bool) (path.Delivery, error) {
	d := &delivery{number: number, dispatcher: p.dispatcher, receiver: r}
	return d, p.dispatcher.AttachReceiver(number, r, fresh)
}

// delivery is of path.Delivery.
type delivery struct {
	number     int
	dispatcher *handoff.Dispatcher
	receiver   receiver.Receiver
}

func (d *delivery) Serving(serving bool) { d.dispatcher.Serving(d.number, d.receiver, serving) }
func (d *delivery) Hear()                { d.dispatcher.Hear(d.number, d.receiver) }
func (d *delivery) End()                 { d.dispatcher.Detach(d.number) }
