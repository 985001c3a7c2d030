package channel

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/netip"
	"os"
	"slices"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/unitgen/unitgen/activation"
	"github.com/unitgen/unitgen/internal/control"
	"github.com/unitgen/unitgen/internal/handoff/receiver"
	"github.com/unitgen/unitgen/internal/nodecluster"
	"github.com/unitgen/unitgen/internal/shim/path"
)

// receiving is a path that gives programs nothing.
type receiving struct{}

func (receiving) Addresses() []path.Address {
	return []path.Address{{TCP: netip.MustParseAddrPort("127.0.0.1:8000")}}
}
func (receiving) Receive(int, receiver.Receiver, bool) (path.Delivery, error) { return delivery{}, nil }

type delivery struct{}

func (delivery) Serving(bool) {}
func (delivery) Hear()        {}
func (delivery) End()         {}

// newChannels are those of an app whose instance 1 has joined; the test is the shim's goroutine.
func newChannels(t *testing.T, r path.Receiving, stored ...path.Stored) *Channels {
	t.Helper()
	log := slog.New(slog.DiscardHandler)
	c := New(Options{
		App: "app", Receiving: r, Store: path.NewStore("app", &activation.Notifier{}, stored, log), Log: log,
		Do: func(_ context.Context, f func()) bool { f(); return true },
	}, control.Settings{})
	c.Join(1)
	return c
}

// withProgram gives instance 1 a program, which says nothing by itself.
func (c *Channels) withProgram(t *testing.T) *conn {
	t.Helper()
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Close(fds[1]) })
	if _, err := c.Attach(1, fds[0]); err != nil {
		t.Fatal(err)
	}
	channel := c.instances[1].program.channel
	t.Cleanup(func() { channel.Close() })
	return channel
}

// say has the program say a message of the cluster's.
func (c *Channels) say(t *testing.T, channel *conn, fields string) *nodecluster.Reply {
	t.Helper()
	m, err := nodecluster.Parse([]byte(`{"cmd":"NODE_CLUSTER","seq":1,` + fields + `}`))
	if err != nil {
		t.Fatal(err)
	}
	return c.said(channel, m)
}

func asked(port int) string {
	return fmt.Sprintf(`"index":0,"data":null,"address":null,"port":%d,"addressType":4`, port)
}

// What the next process finds in the FD store is what this one knew.
func TestStateIsReadBack(t *testing.T) {
	c := newChannels(t, receiving{})
	channel := c.withProgram(t)
	c.say(t, channel, `"act":"queryServer",`+asked(8000))
	c.say(t, channel, `"act":"listening",`+asked(8000))
	c.tickets[c.addresses[0]] = json.RawMessage(`{"ticketKeys":"00"}`)
	state := savedState{
		Saved: 5, Keys: []byte{1}, Ready: []int{1}, Tickets: c.tickets, Workers: map[int]nodecluster.Worker{1: c.instances[1].program.worker},
	}
	stored := []path.Stored{{Name: "app@1.socket", FD: 99}, {Name: "channel@1", FD: 98}}
	for i, s := range []savedState{{Saved: 4}, state} {
		text, err := json.Marshal(s)
		if err != nil {
			t.Fatal(err)
		}
		file, err := os.CreateTemp(t.TempDir(), "")
		if err != nil {
			t.Fatal(err)
		}
		defer file.Close()
		if _, err := file.Write(text); err != nil {
			t.Fatal(err)
		}
		fd, err := unix.FcntlInt(file.Fd(), unix.F_DUPFD_CLOEXEC, 0)
		if err != nil {
			t.Fatal(err)
		}
		stored = append(stored, path.Stored{Name: fmt.Sprint(storedNodes, i), FD: fd})
	}
	next := newChannels(t, receiving{}, stored...)
	channels, back := next.takeStored()
	worker := back.Workers[1]
	if left := next.store.Names(); len(channels) != 1 || channels[1] != 98 || !slices.Equal(left, []string{"app@1.socket"}) {
		t.Errorf("channels %v, left over %v", channels, left)
	}
	if back.Saved != 5 || !slices.Equal(back.Ready, []int{1}) || !slices.Equal(back.Keys, []byte{1}) ||
		len(worker.Missing(c.addresses)) != 0 || string(back.Tickets[c.addresses[0]]) != `{"ticketKeys":"00"}` {
		t.Errorf("read back %+v", back)
	}
}

// A peer that cannot be looked up gets no channel and no answer, so that it tries again. (That a
// stranger is turned away is tested where there is a manager to ask.)
func TestPeerThatCannotBeLookedUpGetsNoChannel(t *testing.T) {
	c := newChannels(t, nil)
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fds[1])
	conn, err := nodecluster.Adopt(fds[0])
	if err != nil {
		t.Fatal(err)
	}
	_, err = c.admit(t.Context(), conn) // nobody to ask: there is no manager
	conn.Close()
	if err == nil {
		t.Error("a stranger was admitted")
	}
	if g, err := nodecluster.AwaitGreeting(fds[1]); !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("the peer was greeted with %+v, %v", g, err)
	}
}

// Each save costs PID 1 two messages: what a program asks for in vain is not worth one.
func TestStateThatHasNotChangedIsNotSaved(t *testing.T) {
	for name, r := range map[string]path.Receiving{"given its connections": receiving{}, "accepts for itself": nil} {
		t.Run(name, func(t *testing.T) {
			c := newChannels(t, r)
			channel := c.withProgram(t)
			before := c.saved
			for range 20 {
				if reply := c.say(t, channel, `"act":"queryServer",`+asked(1)); (reply != nil) != (r != nil) {
					t.Fatalf("listen() on a port that is not the app's is answered with %v", reply)
				}
			}
			if c.saved != before || before != 1 {
				t.Errorf("%d saves before, and %d for 20 refused calls of listen()", before, c.saved-before)
			}
		})
	}
}
