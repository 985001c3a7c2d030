package balance

import (
	"fmt"
	"math/rand/v2"
	"testing"
	"time"
)

var start = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)

func TestRingOrder(t *testing.T) {
	for _, c := range []struct {
		members []Member
		want    string
	}{
		{nil, "[]"},
		{[]Member{{1, 1}}, "[1]"},
		{[]Member{{1, 256}}, "[1]"},
		{[]Member{{1, 1}, {2, 1}, {3, 1}}, "[1 2 3]"},
		{[]Member{{1, 5}, {2, 1}, {3, 1}}, "[1 1 2 1 3 1 1]"}, // the example in nginx's commit message
		{[]Member{{1, 4}, {2, 2}, {3, 0}}, "[1 2 1]"},
		{[]Member{{7, -1}}, "[]"},
	} {
		if got := fmt.Sprint(Ring(c.members)); got != c.want {
			t.Errorf("%v: got %s, want %s", c.members, got, c.want)
		}
	}
}

// Any len(ring) consecutive picks hold each member exactly its number of times, in proportion to
// the weights, and no stretch of picks is further from its share than smooth round robin allows.
func TestRingProperties(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	for range 300 {
		var members []Member
		total := 0
		for id := range 1 + random.IntN(12) {
			m := Member{ID: id + 1, Weight: 1 + random.IntN(MaxWeight)}
			members = append(members, m)
			total += m.Weight
		}
		ring := Ring(members)
		if len(ring) > MaxRing || total%len(ring) != 0 {
			t.Fatalf("%v: ring of %d entries", members, len(ring))
		}
		count := make(map[uint16]int)
		for i, id := range ring {
			count[id]++
			for _, m := range members {
				share := float64(i+1) * float64(m.Weight) / float64(total)
				if off := float64(count[uint16(m.ID)]) - share; off > float64(len(members)) || off < -float64(len(members)) {
					t.Fatalf("%v: after %d picks backend %d is off its share by %.1f", members, i+1, m.ID, off)
				}
			}
		}
		for _, m := range members {
			if got := count[uint16(m.ID)] * total / len(ring); got != m.Weight {
				t.Fatalf("%v: backend %d is %d times in a ring of %d", members, m.ID, count[uint16(m.ID)], len(ring))
			}
		}
	}
}

func TestRingIsBounded(t *testing.T) {
	random := rand.New(rand.NewPCG(3, 4))
	for _, n := range []int{40, 100, MaxID} {
		var members []Member
		for id := range n {
			members = append(members, Member{ID: id + 1, Weight: MaxWeight - random.IntN(MaxWeight/2)})
		}
		members[0].Weight, members[1].Weight = MinWeight, MaxWeight
		ring := Ring(members)
		count := make(map[uint16]int)
		for _, id := range ring {
			count[id]++
		}
		if len(ring) > MaxRing || len(ring) < MaxRing-n || len(count) != n {
			t.Errorf("%d backends: ring of %d entries with %d backends", n, len(ring), len(count))
		}
		if count[1] < 1 || count[2] < 4*count[1] && n < MaxID {
			t.Errorf("%d backends: lightest %d times, heaviest %d times", n, count[1], count[2])
		}
	}
}

func newPool(t *testing.T, options Options, weights ...int) *Pool {
	t.Helper()
	p, err := NewPool(options)
	if err != nil {
		t.Fatal(err)
	}
	for i, w := range weights {
		if err := p.Add(i+1, w); err != nil {
			t.Fatal(err)
		}
		move(t, p, i+1, Up, start)
	}
	return p
}

func move(t *testing.T, p *Pool, id int, to State, now time.Time) {
	t.Helper()
	if err := p.Move(id, to, now); err != nil {
		t.Fatal(err)
	}
}

func expectRing(t *testing.T, p *Pool, now time.Time, want string) time.Time {
	t.Helper()
	ring, next := p.Ring(now)
	if got := fmt.Sprint(ring); got != want {
		t.Errorf("ring after %v: got %s, want %s", now.Sub(start), got, want)
	}
	return next
}

func TestStatesDecideTheRing(t *testing.T) {
	p := newPool(t, Options{}, 0, 2, 1)
	expectRing(t, p, start, "[2 1 3 2]")
	for _, s := range []State{Down, Starting, Draining} {
		move(t, p, 2, s, start)
		expectRing(t, p, start, "[1 3]")
	}
	move(t, p, 2, Up, start)
	expectRing(t, p, start, "[2 1 3 2]")
	if err := p.Eject(1); err != nil {
		t.Fatal(err)
	}
	expectRing(t, p, start, "[2 3 2]")
	if b, ok := p.Backend(1); !ok || !b.Stuck || b.State != Up || b.InRing() {
		t.Errorf("ejected backend: %+v", b)
	}
	if err := p.Restore(1, start); err != nil {
		t.Fatal(err)
	}
	expectRing(t, p, start, "[2 1 3 2]")
	if err := p.Weigh(2, 1); err != nil {
		t.Fatal(err)
	}
	expectRing(t, p, start, "[1 2 3]")
	p.Remove(1)
	p.Remove(1)
	expectRing(t, p, start, "[2 3]")
	move(t, p, 2, Draining, start)
	move(t, p, 3, Down, start)
	expectRing(t, p, start, "[]")
	if all := p.Backends(); len(all) != 2 || all[0].ID != 2 || all[1].ID != 3 {
		t.Errorf("backends: %+v", all)
	}
}

func TestRestartEndsEjection(t *testing.T) {
	p := newPool(t, Options{}, 1)
	if err := p.Eject(1); err != nil {
		t.Fatal(err)
	}
	move(t, p, 1, Down, start)
	move(t, p, 1, Up, start)
	expectRing(t, p, start, "[1]")
}

func TestFirst(t *testing.T) {
	p := newPool(t, Options{Strategy: First, SlowStart: time.Minute}, 1, 1, 1)
	expectRing(t, p, start, "[1]")
	move(t, p, 1, Draining, start)
	expectRing(t, p, start, "[2]")
	move(t, p, 1, Up, start)
	if next := expectRing(t, p, start, "[1]"); !next.IsZero() {
		t.Errorf("first has a slow start at %v", next)
	}
}

func TestSlowStart(t *testing.T) {
	const ramp = 9 * time.Second
	p := newPool(t, Options{SlowStart: ramp}, 1, 1)
	if _, next := p.Ring(start); !next.IsZero() {
		t.Errorf("slow start at the first start: next change %v", next)
	}
	move(t, p, 2, Down, start)
	move(t, p, 2, Starting, start)
	move(t, p, 2, Up, start)
	now := start
	for step := 1; ; step++ {
		ring, next := p.Ring(now)
		second := 0
		for _, id := range ring {
			if id == 2 {
				second++
			}
		}
		if got, want := float64(second)/float64(len(ring)-second), float64(step)/rampParts; got != want {
			t.Errorf("step %d: share %v of the other's, want %v", step, got, want)
		}
		if next.IsZero() {
			if step != rampParts {
				t.Errorf("slow start ended at step %d", step)
			}
			break
		}
		if same, _ := p.Ring(next.Add(-1)); fmt.Sprint(same) != fmt.Sprint(ring) {
			t.Errorf("step %d: the ring changed before %v", step, next.Sub(start))
		}
		if want := start.Add(ramp * time.Duration(step) / (rampParts - 1)); !next.Equal(want) {
			t.Errorf("step %d: next change %v, want %v", step, next.Sub(start), want.Sub(start))
		}
		now = next
	}
	expectRing(t, p, start.Add(-time.Hour), "[1 1 1 1 1 2 1 1 1 1 1]") // a clock that went back
	expectRing(t, p, start.Add(time.Hour), "[1 2]")
}

// However odd the duration, every announced change is one, and the ramp ends on time.
func TestSlowStartStepsEnd(t *testing.T) {
	for _, ramp := range []time.Duration{1, 3, 7, 10, 99, 101, time.Second/3 + 1, time.Hour} {
		p := newPool(t, Options{SlowStart: ramp}, 3, 5)
		move(t, p, 1, Down, start)
		move(t, p, 1, Up, start)
		now, steps := start, 0
		for {
			_, next := p.Ring(now)
			if next.IsZero() {
				break
			}
			if !next.After(now) {
				t.Fatalf("ramp %v: next change %v is not after %v", ramp, next.Sub(start), now.Sub(start))
			}
			now = next
			steps++
		}
		if steps >= rampParts || now.Sub(start) != ramp {
			t.Errorf("ramp %v ended after %v and %d steps", ramp, now.Sub(start), steps)
		}
	}
}

func TestPoolErrors(t *testing.T) {
	if _, err := NewPool(Options{Strategy: "best"}); err == nil {
		t.Error("an unknown strategy: no error")
	}
	p := newPool(t, Options{}, 1)
	for name, err := range map[string]error{
		"add twice":      p.Add(1, 1),
		"add number 0":   p.Add(0, 1),
		"add 1024":       p.Add(MaxID+1, 1),
		"weight 257":     p.Add(2, MaxWeight+1),
		"weigh 0":        p.Weigh(1, 0),
		"weigh nobody":   p.Weigh(9, 1),
		"move nobody":    p.Move(9, Up, start),
		"eject nobody":   p.Eject(9),
		"restore nobody": p.Restore(9, start),
	} {
		if err == nil {
			t.Errorf("%s: no error", name)
		}
	}
	if _, ok := p.Backend(2); ok {
		t.Error("a backend with a bad weight was added")
	}
}

func TestStateWords(t *testing.T) {
	for s, want := range map[State]string{Down: "down", Starting: "starting", Up: "up", Draining: "draining", 9: "state 9"} {
		if s.String() != want {
			t.Errorf("state %d: got %q, want %q", uint8(s), s, want)
		}
	}
}

func BenchmarkLongestRing(b *testing.B) {
	var members []Member
	for id := range MaxID {
		members = append(members, Member{ID: id + 1, Weight: 1 + id%MaxWeight})
	}
	for b.Loop() {
		Ring(members)
	}
}
