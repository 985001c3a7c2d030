// Package systemdtest has a stand-in for a service manager on a bus of its own, for tests of what
// is asked of systemd, in which order, and what is made of answers that a real one gives seldom.
// What systemd does with a request is for tests under a real one.
//
// A test costs the start of a dbus-daemon, some milliseconds.
package systemdtest

import (
	"bufio"
	"github.com/unitgen/unitgen/internal/needs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// Bus is a real dbus-daemon on a socket of the test's own. It ends with the test.
type Bus struct {
	Address string // D-Bus address

	t    *testing.T
	dir  string
	proc *exec.Cmd
}

const config = `<!DOCTYPE busconfig PUBLIC "-//freedesktop//DTD D-Bus Bus Configuration 1.0//EN" "http://www.freedesktop.org/standards/dbus/1.0/busconfig.dtd">
<busconfig><listen>unix:path=%s/bus</listen><auth>EXTERNAL</auth>
<policy context="default"><allow send_destination="*" eavesdrop="true"/><allow eavesdrop="true"/><allow own="*"/></policy>
<limit name="max_match_rules_per_connection">512</limit></busconfig>`

// NewBus starts a bus. Where there is no dbus-daemon the test is skipped, or fails in CI.
func NewBus(t *testing.T) *Bus {
	t.Helper()
	needs.Program(t, "dbus-daemon", "dbus")
	dir := t.TempDir()
	b := &Bus{t: t, dir: dir, Address: "unix:path=" + dir + "/bus"}
	if err := os.WriteFile(filepath.Join(dir, "conf"), []byte(strings.Replace(config, "%s", dir, 1)), 0o600); err != nil {
		t.Fatal(err)
	}
	b.Start()
	t.Cleanup(b.Kill)
	return b
}

// Start starts a bus that was killed, and returns when it listens: the daemon prints its address
// then.
func (b *Bus) Start() {
	b.t.Helper()
	os.Remove(b.dir + "/bus")
	b.proc = exec.Command("dbus-daemon", "--config-file="+b.dir+"/conf", "--nofork", "--print-address=1")
	out, err := b.proc.StdoutPipe()
	if err != nil {
		b.t.Fatal(err)
	}
	if err := b.proc.Start(); err != nil {
		b.t.Fatal(err)
	}
	if _, err := bufio.NewReader(out).ReadString('\n'); err != nil {
		b.t.Fatal("dbus-daemon did not start:", err)
	}
}

// Kill ends the bus.
func (b *Bus) Kill() {
	b.proc.Process.Kill()
	b.proc.Wait()
}
