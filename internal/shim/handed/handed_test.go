package handed

import (
	"log/slog"
	"net"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/unitgen/unitgen/activation"
	"github.com/unitgen/unitgen/internal/shim/path"
)

// A unix socket that an instance shuts down cannot be put back: the path says what mends it.
func TestUnixSocketThatIsShutDownIsTold(t *testing.T) {
	ln, err := net.ListenUnix("unix", &net.UnixAddr{Name: filepath.Join(t.TempDir(), "public"), Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	file, err := ln.File()
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	fd, err := unix.FcntlInt(file.Fd(), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	log := slog.New(slog.DiscardHandler)
	p, err := Open(Options{App: "app", Parking: []int{fd}, Store: path.NewStore("app", &activation.Notifier{}, nil, log), Log: log})
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	if _, harms := p.Look(time.Now()); len(harms) > 0 {
		t.Errorf("a socket that nobody touched: %+v", harms)
	}
	if err := unix.Shutdown(fd, unix.SHUT_RD); err != nil {
		t.Fatal(err)
	}
	_, harms := p.Look(time.Now())
	if len(harms) != 1 || harms[0].Err == nil || !strings.Contains(harms[0].Err.Error(), "systemctl restart app.socket") {
		t.Errorf("a socket that was shut down: %+v", harms)
	}
	if d := p.Describe(); d.Addresses[0].Waiting != 0 || d.Reason != "unix sockets cannot be steered" {
		t.Errorf("description: %+v", d)
	}
}
