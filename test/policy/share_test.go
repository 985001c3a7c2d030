//go:build integration

package policy

import (
	"fmt"
	"maps"
	"strconv"
	"strings"
	"testing"

	"github.com/unitgen/unitgen/test/apps"
	"github.com/unitgen/unitgen/test/rig"
)

// testWeights counts who gets which share, and again with shares that a running balancer is told.
func testWeights(t *testing.T, s *apps.System) {
	a := apps.Start(t, s, "weighed", "--weights", "3,1,2", "--soak", "100ms")
	check := func(weights ...int) {
		t.Helper()
		const rounds = 10
		want, sum := make(map[string]int), 0
		for i, w := range weights {
			want[strconv.Itoa(i+1)] = rounds * w
			sum += rounds * w
		}
		r := a.Load(rig.LoadOptions{Requests: sum}).Wait()
		if a.Lossless(r); !maps.Equal(r.Instances, want) {
			t.Errorf("connections by instance = %v, want %v", r.Instances, want)
		}
	}
	check(3, 1, 2)
	a.Unitgen("--weights=1,4")
	a.Reload()
	a.AwaitUp(a.N)
	check(1, 4, 1)
}

// testPin looks at the CPUs that each process may use.
func testPin(t *testing.T, s *apps.System) {
	all := cpus(t, allowed(s, t, "self"))
	a := apps.Start(t, s, "pinned", "--pin", "--soak", "100ms")
	check := func(want func(i int) string) {
		t.Helper()
		for i := 1; i <= a.N; i++ {
			if got := allowed(s, t, a.PID(a.Instance(i))); got != want(i) {
				t.Errorf("instance %d is on CPUs %s, want %s", i, got, want(i))
			}
		}
	}
	check(func(i int) string { return all[(i-1)%len(all)] })
	a.Unitgen("--pin=no")
	a.Reload()
	check(func(int) string { return allowed(s, t, "self") })
}

// allowed is the list of CPUs that a process of the container may use, as proc(5) writes it.
func allowed(s *apps.System, t *testing.T, pid string) string {
	t.Helper()
	text := s.MustExec(t, "sed", "-n", `s/^Cpus_allowed_list:\s*//p`, "/proc/"+pid+"/status")
	return strings.TrimSpace(text)
}

// cpus takes such a list apart.
func cpus(t *testing.T, list string) []string {
	t.Helper()
	var all []string
	for part := range strings.SplitSeq(list, ",") {
		var low, high int
		if n, err := fmt.Sscanf(part+"-"+part, "%d-%d", &low, &high); n != 2 {
			t.Fatalf("CPUs %q: %v", list, err)
		}
		for cpu := low; cpu <= high; cpu++ {
			all = append(all, strconv.Itoa(cpu))
		}
	}
	return all
}
