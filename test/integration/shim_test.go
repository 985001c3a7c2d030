//go:build integration

package integration

import (
	"fmt"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/unitgen/unitgen/test/apps"
	"github.com/unitgen/unitgen/test/rig"
)

// procField reads a number from /proc of the shim, the one behind name at the start of a line.
func (a *testApp) procField(file, name string) int {
	a.T.Helper()
	text := a.MustExec(a.T, "cat", "/proc/"+a.PID(a.Shim())+"/"+file)
	for line := range strings.Lines(text) {
		rest, ok := strings.CutPrefix(line, name)
		if !ok || strings.TrimSpace(rest) == "" {
			continue
		}
		n, err := strconv.Atoi(strings.Fields(rest)[0])
		if err != nil {
			a.T.Fatal(err)
		}
		return n
	}
	a.T.Fatalf("no %q in %s of the shim: %s", name, file, text)
	return 0
}

// processorTime is what all threads of the shim have used.
func (a *testApp) processorTime() time.Duration {
	a.T.Helper()
	n, err := strconv.ParseInt(a.MustShow(a.T, a.Shim(), "CPUUsageNSec"), 10, 64)
	if err != nil {
		a.T.Fatal(err)
	}
	return time.Duration(n)
}

// testShimCost makes 20000 connections. The shim has nothing to do with them: what it uses
// meanwhile are its looks at the queues, a few a second.
func testShimCost(t *testing.T, s *apps.System) {
	a := startApp(t, s, "cost")
	const connections = 20000
	before, began := a.processorTime(), time.Now()
	a.Lossless(a.load(rig.LoadOptions{Requests: connections}).Wait())
	used, took := a.processorTime()-before, time.Since(began)
	each := used / connections
	t.Logf("shim: %s of processor time in %s, %s per connection", used, took.Round(time.Millisecond), each)
	if looks := 5 * time.Millisecond * (took/time.Second + 1); used > connections*time.Microsecond+looks {
		t.Errorf("the shim used %s for %d connections in %s", used, connections, took)
	}
	resident := a.procField("status", "VmRSS:")
	t.Logf("shim: %d kB resident", resident)
	if resident > 20_000 {
		t.Errorf("the shim has %d kB resident, want less than 20000", resident)
	}
}

// testShimStatus looks at what the shim tells systemctl and the journal.
func testShimStatus(t *testing.T, s *apps.System) {
	a := startApp(t, s, "words", "--instances=4")
	a.Hold(4)
	a.awaitMatch(`^4/4 instances up, \d+ connections?$`)
	a.MustSystemctl("stop", a.Instance(3))
	a.awaitMatch(`^3/4 instances up, \d+ connections?; words@3 down$`)

	a.MustExec(t, "journalctl", "--sync")
	for _, match := range []string{"UNITGEN_INSTANCE=3", "UNITGEN_APP=words"} {
		if out := a.MustExec(t, "journalctl", "--quiet", "--output=cat", "--unit="+a.Shim(), match); !strings.Contains(out, "instance is down") {
			t.Errorf("journal with %s = %q, want that the instance is down", match, out)
		}
	}
}

func (a *testApp) awaitMatch(pattern string) {
	a.T.Helper()
	re := regexp.MustCompile(pattern)
	a.MustWait(a.T, apps.Limit, a.Shim(), func(p rig.Properties) bool { return re.MatchString(p["StatusText"]) })
}

// testWatchdog freezes the shim under load: PID 1 replaces it.
func testWatchdog(t *testing.T, s *apps.System) {
	a := newApp(t, s, "watchdog")
	a.DropIn(a.Shim(), "[Service]\nWatchdogSec=2s\n")
	a.MustSystemctl("enable", "--now", a.Name)
	a.AwaitUp(a.N)
	load := a.load(rig.LoadOptions{})
	pid := a.PID(a.Shim())
	a.MustExec(t, "kill", "-s", "STOP", pid)
	a.AwaitNew(a.Shim(), pid)
	a.AwaitUp(a.N)
	a.AwaitOK(load, 100)
	a.Lossless(load.Stop())
	if text, err := a.Journal(t.Context(), a.Shim()); err != nil || !strings.Contains(text, "Watchdog timeout") {
		t.Errorf("journal = %q, %v; want a watchdog time-out", text, err)
	}
	a.evenly(a.Addr(), a.pids(a.N))
}

// testSlice puts the balancer where the commands of the instances do not find its control group: they
// ask PID 1 for it.
func testSlice(t *testing.T, s *apps.System) {
	a := startApp(t, s, "moved")
	a.DropIn(a.Shim(), "[Service]\nSlice=elsewhere.slice\n")
	load := a.load(rig.LoadOptions{})
	a.MustSystemctl("restart", a.Name)
	a.AwaitUp(a.N)
	if got, want := a.MustShow(t, a.Shim(), "ControlGroup"), "/elsewhere.slice/"+a.Shim(); got != want {
		t.Fatalf("the balancer is in %s, want %s", got, want)
	}
	pid := a.PID(a.Instance(1))
	a.MustSystemctl("restart", a.Instance(1))
	a.AwaitNew(a.Instance(1), pid)
	a.AwaitUp(a.N)
	a.Lossless(load.Stop())
}

// exposure is the score of systemd-analyze security, from 0 (best) to 10.
func exposure(a *apps.App, unit string) float64 {
	a.T.Helper()
	text := a.MustExec(a.T, "systemd-analyze", "security", "--no-pager", unit)
	m := regexp.MustCompile(`Overall exposure level for \S+: ([0-9.]+)`).FindStringSubmatch(text)
	if m == nil {
		a.T.Fatalf("no exposure level in %q", text)
	}
	score, err := strconv.ParseFloat(m[1], 64)
	if err != nil {
		a.T.Fatal(err)
	}
	a.T.Logf("exposure of %s: %s", unit, m[1])
	return score
}

func testExposure(t *testing.T, s *apps.System) {
	a := startApp(t, s, "exposed")
	for unit, most := range map[string]float64{a.Shim(): 1.5, a.Instance(1): 1.5, a.Name + "-join.service": 1.5, a.Name + "-join@1.service": 1.5} {
		if got := exposure(a.App, unit); got > most {
			t.Errorf("exposure of %s = %.1f, want at most %.1f", unit, got, most)
		}
	}
}

// testCommandsAskNothing runs the commands of an instance where PID 1 cannot be asked. Each start
// and each stop would cost it a connection otherwise.
func testCommandsAskNothing(t *testing.T, s *apps.System) {
	a := startApp(t, s, "silent")
	a.MustExec(t, "mkdir", "/run/nothing")
	defer a.MustExec(t, "rmdir", "/run/nothing")
	run := func(pid, words string) (rig.Output, error) {
		const hidden = "mount --bind /run/nothing /run/systemd && mount --bind /run/nothing /run/dbus && exec "
		return s.Exec(t.Context(), "systemd-run", "--scope", "--quiet", "unshare", "--mount", "sh", "-c",
			hidden+"env MAINPID="+pid+" INVOCATION_ID=run SERVICE_RESULT=success "+apps.Lbshim+" "+words)
	}
	const here, gone = "$$", "4194305" // above the highest number of a process
	for _, c := range []struct {
		pid, words string
		fails      bool
	}{
		{here, "ready silent 1 --check=listen", false},
		{here, "backoff silent 1 --restart-delay=200ms", true}, // PID 1 knows how often it has failed
		{here, "drain silent 1", false},
		{here, "backoff silent 1 --restart-delay=200ms", false},
		{here, "backoff silent 1 --restart-delay=200ms", true}, // the stop that the drain began is over
		{gone, "drain silent 1", false},
		{gone, "backoff silent 1 --restart-delay=200ms", true}, // it had ended before the drain
	} {
		if out, err := run(c.pid, c.words); err != nil || (out.Status != 0) != c.fails {
			t.Errorf("lbshim %s: %+v, %v", c.words, out, err)
		}
	}
}

// testPrivateNetwork takes all network but the listener from the instances: they serve all the
// same.
func testPrivateNetwork(t *testing.T, s *apps.System) {
	a := startApp(t, s, "private", "-p", "PrivateNetwork=yes")
	if got := exposure(a.App, a.Instance(1)); got > 0.5 {
		t.Errorf("exposure with PrivateNetwork= = %.1f, want at most 0.5", got)
	}
	a.evenly(a.Addr(), a.pids(a.N))
	if devices := a.MustExec(t, "nsenter", "--net", "--target", a.PID(a.Instance(1)), "ip", "-o", "link"); strings.Count(devices, "\n") != 1 {
		t.Errorf("network devices of an instance: %s", devices)
	}
	a.evenly(fmt.Sprintf("[::1]:%d", a.Port), a.pids(a.N))
}
