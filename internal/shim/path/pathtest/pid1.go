package pathtest

import (
	"context"
	"log/slog"
	"net"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/unitgen/unitgen/activation"
	"github.com/unitgen/unitgen/internal/shim/path"
	"github.com/unitgen/unitgen/internal/sock"
)

// pid1 is the FD store of a manager: what it is told by sd_notify(3) it keeps over processes.
type pid1 struct {
	notify *activation.Notifier
	mu     sync.Mutex
	stored map[string][]int
}

func newPID1(t *testing.T) *pid1 {
	t.Helper()
	name := filepath.Join(t.TempDir(), "notify")
	conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: name, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	p := &pid1{stored: make(map[string][]int)}
	done := make(chan struct{})
	go func() { defer close(done); p.listen(conn) }() // ends with conn, awaited below
	p.notify, err = activation.Env{
		Lookup: func(key string) (string, bool) { return name, key == "NOTIFY_SOCKET" },
		Unset:  func(string) error { return nil },
	}.NewNotifier()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		p.notify.Close()
		conn.Close()
		<-done
		for _, fds := range p.stored {
			sock.CloseAll(fds)
		}
	})
	return p
}

// listen takes in messages until conn is closed.
func (p *pid1) listen(conn *net.UnixConn) {
	text, oob := make([]byte, 4096), make([]byte, unix.CmsgSpace(4*253))
	for {
		n, oobn, _, _, err := conn.ReadMsgUnix(text, oob)
		if err != nil {
			return
		}
		var fds []int
		messages, _ := unix.ParseSocketControlMessage(oob[:oobn])
		for _, m := range messages {
			if got, err := unix.ParseUnixRights(&m); err == nil {
				fds = append(fds, got...)
			}
		}
		p.told(strings.Split(string(text[:n]), "\n"), fds)
	}
}

func (p *pid1) told(lines []string, fds []int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	name := ""
	for _, line := range lines {
		if after, ok := strings.CutPrefix(line, "FDNAME="); ok {
			name = after
		}
	}
	switch {
	case slices.Contains(lines, "FDSTORE=1"):
		p.stored[name] = append(p.stored[name], fds...)
	case slices.Contains(lines, "FDSTOREREMOVE=1"):
		sock.CloseAll(p.stored[name])
		delete(p.stored, name)
	default:
		sock.CloseAll(fds) // of a barrier, which ends so
	}
}

// settled returns when all is taken in that was told.
func (p *pid1) settled(t *testing.T) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	defer cancel()
	if err := p.notify.Barrier(ctx); err != nil {
		t.Fatal(err)
	}
}

// store is what a new process is passed.
func (p *pid1) store(t *testing.T) *path.Store {
	t.Helper()
	p.settled(t)
	p.mu.Lock()
	defer p.mu.Unlock()
	var left []path.Stored
	for name, fds := range p.stored {
		for _, fd := range fds {
			dup, err := unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 0)
			if err != nil {
				t.Fatal(err)
			}
			left = append(left, path.Stored{Name: name, FD: dup})
		}
	}
	return path.NewStore("app", p.notify, left, slog.New(slog.DiscardHandler))
}

// names are those that the store has.
func (p *pid1) names(t *testing.T) (names []string) {
	t.Helper()
	p.settled(t)
	p.mu.Lock()
	defer p.mu.Unlock()
	for name := range p.stored {
		names = append(names, name)
	}
	return names
}
