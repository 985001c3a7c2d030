//go:build integration

package integration

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/unitgen/unitgen/test/apps"
	"github.com/unitgen/unitgen/test/rig"
)

// testApp is an app with what the tests of this package ask of it besides.
type testApp struct{ *apps.App }

// newApp is apps.New for two instances, or in make test-all four.
func newApp(t *testing.T, s *apps.System, name string, words ...string) *testApp {
	t.Helper()
	return &testApp{apps.New(t, s, name, append([]string{apps.Size(4)}, words...)...)}
}

// startApp is newApp with --now, and waits until all instances are up.
func startApp(t *testing.T, s *apps.System, name string, words ...string) *testApp {
	t.Helper()
	a := newApp(t, s, name, append([]string{"--now"}, words...)...)
	a.AwaitUp(a.N)
	return a
}

// times is how often a test does what is to go well each time, whenever it is done: in make
// test-all n times, else once.
func times(n int) int {
	if rig.All() {
		return n
	}
	return 1
}

// awaitSub waits until unit is in a SubState.
func (a *testApp) awaitSub(unit, state string) {
	a.T.Helper()
	a.MustWait(a.T, apps.Limit, unit, func(p rig.Properties) bool { return p["SubState"] == state })
}

// pids are the main processes of instances 1 to n.
func (a *testApp) pids(n int) map[int]string {
	a.T.Helper()
	pids := make(map[int]string)
	for i := 1; i <= n; i++ {
		pids[i] = a.PID(a.Instance(i))
	}
	return pids
}

// instances are the units of all instances.
func (a *testApp) instances() []string {
	var units []string
	for i := range a.N {
		units = append(units, a.Instance(i+1))
	}
	return units
}

// inodes are those of the listening sockets on the app's port, sorted: the same before and after if
// none was made anew.
func (a *testApp) inodes() string {
	a.T.Helper()
	var inodes []string
	for _, word := range strings.Fields(a.MustExec(a.T, "ss", "-tlnHe", fmt.Sprintf("sport = :%d", a.Port))) {
		if strings.HasPrefix(word, "ino:") {
			inodes = append(inodes, word)
		}
	}
	slices.Sort(inodes)
	return strings.Join(inodes, " ")
}

// load puts load on the app; Addr may be empty. It ends with the test at the latest. Unless it is a
// number of requests it has a rate which leaves PID 1 time to do what the test is about.
func (a *testApp) load(opts rig.LoadOptions) *rig.Load {
	if opts.Addr == "" {
		opts.Addr = a.Addr()
	}
	if opts.Timeout == 0 {
		opts.Timeout = apps.Limit
	}
	if opts.Requests == 0 && opts.Rate == 0 {
		opts.Rate = 400
	}
	l := a.StartLoad(opts)
	a.T.Cleanup(func() { l.Stop() })
	return l
}

// evenly makes connections to addr and checks that each process of want had its exact share.
func (a *testApp) evenly(addr string, want map[int]string) {
	a.T.Helper()
	const each = 50
	r := a.load(rig.LoadOptions{Addr: addr, Requests: each * len(want)}).Wait()
	a.Lossless(r)
	expected := make(map[int]int)
	for _, pid := range want {
		n, err := strconv.Atoi(pid)
		if err != nil || n == 0 {
			a.T.Fatalf("processes of the instances = %v, want one each", want)
		}
		expected[n] = each
	}
	if !maps.Equal(r.PIDs, expected) {
		a.T.Errorf("connections by process = %v, want %v", r.PIDs, expected)
	}
}

// byInstance counts connections.
func byInstance(conns []*apps.Held) map[string]int {
	counts := make(map[string]int)
	for _, h := range conns {
		counts[h.Instance]++
	}
	return counts
}
