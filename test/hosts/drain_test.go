//go:build integration

package hosts

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/unitgen/unitgen/test/apps"
	"github.com/unitgen/unitgen/test/rig"
)

// A drained host says so at once, serves what comes, and stays drained while its balancer and its
// app are started anew.
func testDrain(t *testing.T, s *apps.System) {
	c := startChecked(t, s, "site")
	load := c.Load(rig.LoadOptions{Rate: 100})
	c.await("ready up 100%\n")
	c.MustExec(t, "unitgen", "drain", c.Name)
	c.await("drain\n")
	if status, body := c.health(); status != "503 Service Unavailable" || !strings.Contains(body, `"state":"drain"`) {
		t.Errorf("health of a drained host is %s %s", status, body)
	}
	c.AwaitStatus("drained (unitgen undrain site); 3/3 instances up")
	if out := c.MustExec(t, "unitgen", "status", c.Name); !strings.Contains(out, "Drained: since ") {
		t.Errorf("status says\n%s", out)
	}
	c.AwaitOK(load, 20)

	pid := c.PID(c.Shim())
	c.Signal(c.Shim(), "SIGKILL")
	c.AwaitNew(c.Shim(), pid)
	c.AwaitUp(3)
	c.await("drain\n")
	c.AwaitOK(load, 20)
	c.Lossless(load.Stop())

	// Started anew, it is drained still.
	c.MustSystemctl("restart", c.Shim())
	c.await("drain\n")
	c.MustExec(t, "unitgen", "undrain", c.Name)
	c.await("ready up 100%\n")
	if out := c.MustExec(t, "unitgen", "status", c.Name); strings.Contains(out, "Drained:") {
		t.Errorf("status after undrain says\n%s", out)
	}
	testDrainWait(t, c)
}

// --wait returns when the last connection ends, over the death of the balancer, and no sooner than
// a front can have noticed.
func testDrainWait(t *testing.T, c *checked) {
	held := c.Hold(1)[0]
	out, err := c.Exec(t.Context(), "unitgen", "drain", c.Name, "--wait", "--timeout=7s")
	if err != nil || out.Status != 1 || !strings.Contains(out.Stderr, "1 connection still open after 7s") ||
		!strings.Contains(out.Stderr, fmt.Sprintf("hint: ss -tn 'sport = :%d'", c.Port)) {
		t.Fatalf("drain with a connection open: %+v, %v", out, err)
	}
	c.MustExec(t, "unitgen", "undrain", c.Name)
	began := time.Now()
	waits := make(chan rig.Output, 1)
	go func() {
		out, _ := c.Exec(t.Context(), "unitgen", "drain", c.Name, "--wait")
		waits <- out
	}()
	c.await("drain\n")
	pid := c.PID(c.Shim())
	c.Signal(c.Shim(), "SIGKILL")
	c.AwaitNew(c.Shim(), pid)
	c.AwaitUp(3)
	select {
	case out := <-waits:
		t.Fatalf("the wait ended with a connection open: %+v", out)
	default:
	}
	held.Close()
	if out := <-waits; out.Status != 0 || time.Since(began) < 5*time.Second {
		t.Errorf("after %s: %+v", time.Since(began), out)
	}
	c.MustExec(t, "unitgen", "undrain", c.Name)
}

// A drain ends with a reboot, unless it is to last; "remove" forgets it.
func testDrainReboot(t *testing.T, s *apps.System) {
	for _, name := range []string{"brief", "lasting"} {
		a := apps.New(t, s, name, "--instances=1", "--now")
		words := []string{"unitgen", "drain", name}
		if name == "lasting" {
			words = append(words, "--persist")
		}
		a.MustExec(t, words...)
		a.AwaitStatus("drained")
	}
	if err := s.Reboot(t.Context()); err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]bool{"brief": false, "lasting": true} {
		p := s.MustWait(t, apps.Limit, name+".service", func(p rig.Properties) bool { return strings.Contains(p["StatusText"], "1/1 instances up") })
		if got := strings.Contains(p["StatusText"], "drained"); got != want {
			t.Errorf("%s after a reboot: %q", name, p["StatusText"])
		}
	}
	s.MustExec(t, "unitgen", "remove", "lasting")
	s.MustExec(t, "unitgen", "lasting", "--instances=1", "--listen=3999", "--now", "--", apps.Server)
	if text := s.MustShow(t, "lasting.service", "StatusText"); strings.Contains(text, "drained") {
		t.Errorf("an app that was removed and made again: %q", text)
	}
}
