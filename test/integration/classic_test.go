//go:build integration

package integration

import (
	"fmt"
	"strings"
	"testing"

	"github.com/unitgen/unitgen/test/apps"
	"github.com/unitgen/unitgen/test/rig"
)

// TestClassicBPF runs an app where systemd has no CAP_BPF to give, as in many containers. unitgen
// gives it classic BPF by itself; an app that is to have eBPF does not start, and doctor says why.
func TestClassicBPF(t *testing.T) {
	rig.NewestSuite(t, func(t *testing.T, suite string) {
		s := apps.Boot(t, suite, "--drop-capability=CAP_BPF")
		a := apps.New(t, s, "classic")
		out, err := s.Exec(t.Context(), "unitgen", "another", fmt.Sprintf("--listen=%d", s.NewPort()), "--dry-run", "--", apps.Server)
		const note = "Note: connections are spread at random (--classic-bpf): systemd has no CAP_BPF to give, as in a container.\n"
		if err != nil || out.Status != 0 || !strings.Contains(out.Stderr, note) || !strings.Contains(out.Stdout, "ClassicBPF=yes\n") {
			t.Errorf("a new app: %+v, %v", out, err)
		}
		a.Unitgen("--now")
		a.AwaitUp(a.N)
		load := a.Load(rig.LoadOptions{Clients: 4, Rate: 200})
		a.AwaitOK(load, 200)
		a.MustSystemctl("reload", a.Name)
		r := load.Stop()
		a.Lossless(r)
		if len(r.Instances) < a.N {
			t.Errorf("answers by instance: %v", r.Instances)
		}
		if out, err := s.Exec(t.Context(), "unitgen", "doctor"); err != nil || out.Status != 0 {
			t.Errorf("doctor: %+v, %v", out, err)
		}
		if score := exposure(a, a.Shim()); score > 1.5 {
			t.Errorf("exposure of the balancer = %.1f, want at most 1.5", score)
		}
		a.Unitgen("--classic-bpf=no")
		if err := a.Systemctl(t.Context(), "restart", a.Name); err == nil {
			t.Error("an app starts that needs CAP_BPF")
		}
		out, err = s.Exec(t.Context(), "unitgen", "doctor", a.Name)
		const want = "classic: its balancer cannot use eBPF here: systemd has no CAP_BPF to give, as in a container: unitgen classic --classic-bpf\n"
		if err != nil || out.Status != 1 || !strings.Contains(out.Stdout, want) {
			t.Errorf("doctor: %+v, %v; want %q", out, err, want)
		}
	})
}
