//go:build integration

// Package bind tests programs that open their port themselves, unchanged, under a real PID 1: each is an app whose instances
// share one port evenly, are reloaded and killed under load, and see who their clients are.
//
// What is asserted are counts and states, nothing about speed.
package bind

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/unitgen/unitgen/test/apps"
	"github.com/unitgen/unitgen/test/rig"
)

// program is the server of folder program, in the container.
const program = "/usr/local/bin/program"

// TestPrograms runs on the newest systemd: what differs on the oldest is in TestOldest.
func TestPrograms(t *testing.T) {
	tests := []struct {
		name string
		run  func(*testing.T, *apps.System)
	}{
		{"PythonServer", testPythonServer},
		{"StaticGo", testStaticGo},
	}
	t.Run("trixie", func(t *testing.T) {
		s := boot(t, "trixie")
		for _, tt := range tests {
			t.Run(tt.name, func(t *testing.T) { tt.run(t, s) })
		}
	})
}

// TestOldest is what the sandbox of units for systemd 252 must let through, of which that of later ones has more by itself.
func TestOldest(t *testing.T) {
	t.Run("bookworm", func(t *testing.T) { testStaticGo(t, boot(t, "bookworm")) })
}

// boot is apps.Boot with the programs of this package.
func boot(t *testing.T, suite string) *apps.System {
	t.Helper()
	s := apps.Boot(t, suite)
	binary := filepath.Join(t.TempDir(), "program")
	build := exec.CommandContext(t.Context(), "go", "build", "-trimpath", "-o", binary, "./program")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build program: %v\n%s", err, out)
	}
	s.MustCopyIn(t, binary, program, 0o755)
	return s
}

// listenOn is the option for a port at every IPv4 address.
func listenOn(port int) string { return fmt.Sprintf("--listen=0.0.0.0:%d", port) }

// testPythonServer runs python3 -m http.server, which logs who asks.
func testPythonServer(t *testing.T, s *apps.System) {
	port := s.NewPort()
	a := apps.NewAt(t, s, port, "python", "--now", listenOn(port), "--", "/usr/bin/python3", "-u", "-m", "http.server", strconv.Itoa(port))
	a.AwaitUp(a.N)
	const each = 20
	a.Lossless(a.Load(rig.LoadOptions{Requests: each * a.N, Clients: 1}).Wait())
	for i := range a.N {
		log := a.Log(a.Instance(i + 1))
		requests := strings.Count(log, "127.0.0.1 - - ")
		if requests != each || requests != strings.Count(log, "GET / ") {
			t.Errorf("instance %d logged %d requests of 127.0.0.1, want %d:\n%s", i+1, requests, each, log)
		}
	}
	lossless(a)
}

// lossless reloads and kills the app under load.
func lossless(a *apps.App) {
	load := a.Load(rig.LoadOptions{})
	a.AwaitOK(load, 50)
	a.Reload()
	a.AwaitOK(load, 50)
	a.Lossless(load.Stop())

	load = a.Load(rig.LoadOptions{Clients: 2})
	a.AwaitOK(load, 50)
	pid := a.PID(a.Instance(1))
	a.Signal(a.Instance(1), "KILL")
	a.AwaitNew(a.Instance(1), pid)
	a.AwaitUp(a.N)
	a.AwaitOK(load, 50)
	a.LostAtMost(load.Stop(), 2)
}

func testStaticGo(t *testing.T, s *apps.System) {
	port := s.NewPort()
	a := apps.NewAt(t, s, port, "static", "--now", listenOn(port), "--", program, ":"+strconv.Itoa(port))
	a.AwaitUp(a.N)
	a.Evenly()
	a.Serves("peer=127.0.0.1:")
	lossless(a)
	a.Evenly()
}
