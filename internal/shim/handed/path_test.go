package handed

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"net"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/unitgen/unitgen/activation"
	"github.com/unitgen/unitgen/internal/control"
	"github.com/unitgen/unitgen/internal/handoff"
	"github.com/unitgen/unitgen/internal/shim/path"
	"github.com/unitgen/unitgen/internal/shim/path/pathtest"
)

// Programs accept through package activation.
func TestPath(t *testing.T) {
	pathtest.Run(t, func(t *testing.T) pathtest.World {
		w := &world{t: t, dir: t.TempDir(), private: make(map[int]int)}
		public := w.listen(unix.AF_INET, unix.SOCK_STREAM, &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}})
		name, err := unix.Getsockname(public)
		if err != nil {
			t.Fatal(err)
		}
		return pathtest.World{
			Address: fmt.Sprintf("127.0.0.1:%d", name.(*unix.SockaddrInet4).Port),
			Open: func(s *path.Store) (pathtest.Path, error) {
				return Open(Options{App: "app", Strategy: "round-robin", Parking: []int{w.dup(public)}, Store: s, Log: slog.New(slog.DiscardHandler)})
			},
			Unit: func(instance int) []int {
				if w.private[instance] == 0 {
					w.private[instance] = w.listen(unix.AF_UNIX, unix.SOCK_SEQPACKET, &unix.SockaddrUnix{Name: w.name(instance)})
				}
				return []int{w.dup(w.private[instance])}
			},
			Program: w.program,
			Refuse:  handoff.Refuse,
		}
	})
}

// world has the sockets that PID 1 would have.
type world struct {
	t       *testing.T
	dir     string
	private map[int]int
}

func (w *world) name(instance int) string { return filepath.Join(w.dir, strconv.Itoa(instance)) }

// listen returns a listener of a type and address that is open until the test ends.
func (w *world) listen(family, kind int, address unix.Sockaddr) int {
	w.t.Helper()
	fd, err := unix.Socket(family, kind|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(func() { unix.Close(fd) })
	if err = unix.Bind(fd, address); err == nil {
		err = unix.Listen(fd, 128)
	}
	if err != nil {
		w.t.Fatal(err)
	}
	return fd
}

func (w *world) dup(fd int) int {
	w.t.Helper()
	dup, err := unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		w.t.Fatal(err)
	}
	return dup
}

// loop is a path.Loop for a test that is the shim's goroutine.
type loop struct{}

func (loop) Do(_ context.Context, f func() error) error { return f() }
func (loop) Probed(int, time.Time)                      {}
func (loop) Harmed([]path.Harm)                         {}

// program connects an instance and returns what its program accepts from.
func (w *world) program(p path.Path, instance int) net.Listener {
	w.t.Helper()
	channel, err := unix.Socket(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err == nil {
		err = unix.Connect(channel, &unix.SockaddrUnix{Name: w.name(instance)})
	}
	if err == nil {
		_, err = p.Handle(w.t.Context(), loop{}, &control.Request{
			Method: control.MethodConnect, Parameters: json.RawMessage(fmt.Sprintf(`{"instance":%d}`, instance)), FDs: []int{channel},
		})
	}
	if err != nil {
		w.t.Fatal(err)
	}
	passed := map[string]string{"LISTEN_PID": "1", "LISTEN_FDS": "1", "LISTEN_FDNAMES": activation.HandoffName}
	fd, err := unix.Dup(w.private[instance]) // not close-on-exec, as if passed
	if err != nil {
		w.t.Fatal(err)
	}
	descriptors, err := activation.Env{
		Lookup: func(key string) (string, bool) { value, ok := passed[key]; return value, ok },
		Unset:  func(string) error { return nil }, PID: 1, FirstFD: fd,
	}.Inherit()
	if err != nil {
		w.t.Fatal(err)
	}
	listeners, err := descriptors.AllListeners()
	if err != nil {
		w.t.Fatal(err)
	}
	return listeners[0]
}
