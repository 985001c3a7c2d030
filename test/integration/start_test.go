//go:build integration

package integration

import (
	"fmt"
	"strings"
	"testing"

	"github.com/unitgen/unitgen/test/apps"
	"github.com/unitgen/unitgen/test/rig"
)

// testSpread connects to every kind of address and counts by process.
func testSpread(t *testing.T, s *apps.System) {
	p1, p2 := s.NewPort(), s.NewPort()
	v4 := func(port int) string { return fmt.Sprintf("127.0.0.1:%d", port) }
	v6 := func(port int) string { return fmt.Sprintf("[::1]:%d", port) }
	tests := []struct {
		name   string
		listen []string
		dial   []string
	}{
		{"every address", []string{fmt.Sprint(p1)}, []string{v4(p1), v6(p1)}},
		{"IPv4", []string{v4(p1)}, []string{v4(p1)}},
		{"IPv6", []string{v6(p1)}, []string{v6(p1)}},
		{"both apart", []string{fmt.Sprintf("0.0.0.0:%d", p1), fmt.Sprintf("[::]:%d", p1)}, []string{v4(p1), v6(p1)}},
		{"two ports", []string{fmt.Sprint(p1), fmt.Sprint(p2)}, []string{v4(p1), v6(p1), v4(p2), v6(p2)}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			words := []string{"--instances=2"}
			for _, l := range tt.listen {
				words = append(words, "--listen="+l)
			}
			a := startApp(t, s, "spread", words...)
			pids := a.pids(2)
			for _, addr := range tt.dial {
				a.evenly(addr, pids)
			}
		})
	}
}

// testStartWaits starts an app whose instances need time, under load: the first one answers, and
// "systemctl start" returns no sooner than that.
func testStartWaits(t *testing.T, s *apps.System) {
	a := newApp(t, s, "slow", "--property=ExecStartPre=/bin/sleep 1")
	a.MustSystemctl("start", "slow.socket")
	load := a.load(rig.LoadOptions{})
	a.MustSystemctl("start", "slow")
	up := 0
	for i := range a.N {
		if a.MustShow(t, a.Instance(i+1), "ActiveState") == "active" {
			up++
		}
	}
	if up == 0 {
		t.Error("no instance is active when start returns")
	}
	if !strings.Contains(a.MustShow(t, a.Shim(), "StatusText"), fmt.Sprintf("/%d instances up", a.N)) {
		t.Error("the shim has no status when start returns")
	}
	a.AwaitUp(a.N)
	a.AwaitOK(load, 100)
	a.Lossless(load.Stop())
	a.evenly(a.Addr(), a.pids(a.N))
}

// testStartFails starts an app that never gets ready. The command must say so, and start once it is
// mended.
func testStartFails(t *testing.T, s *apps.System) {
	a := newApp(t, s, "broken")
	undo := a.DropIn("broken@.service", "[Service]\nExecStart=\nExecStart=/bin/sh -c 'exit 1'\nExecStartPre=/bin/false\n")
	out, err := a.Exec(t.Context(), "systemctl", "start", "broken")
	if err != nil || out.Status == 0 {
		t.Errorf("start of an app that fails = %+v, %v; want an exit status other than 0", out, err)
	}
	if text, err := a.Journal(t.Context(), "broken.service"); err != nil || !strings.Contains(text, "every instance fails") ||
		!strings.Contains(text, "did not get ready: ") {
		t.Errorf("journal = %q, %v; want the reason in it", text, err)
	}
	undo()
	a.MustSystemctl("start", "broken")
	a.AwaitUp(a.N)
	a.evenly(a.Addr(), a.pids(a.N))
}

// testConnectStarts connects to an app of which the parking listener alone is there.
func testConnectStarts(t *testing.T, s *apps.System) {
	a := newApp(t, s, "connect")
	a.MustSystemctl("start", "connect.socket")
	if got := a.MustShow(t, a.Shim(), "ActiveState"); got != "inactive" {
		t.Fatalf("the shim is %s before the first connection", got)
	}
	a.Lossless(a.load(rig.LoadOptions{Clients: 50, Requests: 50}).Wait())
	a.AwaitUp(a.N)
	a.evenly(a.Addr(), a.pids(a.N))
}
