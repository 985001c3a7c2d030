package shim

import (
	"testing"
	"time"

	"github.com/unitgen/unitgen/internal/balance"
	"github.com/unitgen/unitgen/internal/control"
)

// holder is the one instance that n connections of this host go to.
func (b *bench) holder(when string) int {
	b.t.Helper()
	const n = 10
	for number, got := range b.connect(n) {
		if got == n {
			return number
		}
		if got > 0 {
			b.t.Errorf("%s: instance %d has %d of %d connections of one client", when, number, got, n)
		}
	}
	return 0
}

// A client moves when its instance drains, and is back when that has its whole share again.
func TestSourceHashFollowsDrainsAndSlowStart(t *testing.T) {
	b := newBench(t, Options{Settings: control.Settings{Strategy: balance.SourceHash, SlowStart: time.Minute}})
	for number := 1; number <= 3; number++ {
		b.up(number)
	}
	first := b.holder("all up")
	b.service(first, "deactivating", "stop")
	if second := b.holder("one drains"); second == first {
		t.Errorf("the client is still at instance %d, which drains", first)
	}
	b.service(first, "active", "running")
	b.holder("it is back, and warms up")
	if err := b.settle(time.Now().Add(2 * time.Minute)); err != nil {
		t.Fatal(err)
	}
	if again := b.holder("it has warmed up"); again != first {
		t.Errorf("the client is at instance %d, was at %d", again, first)
	}
}

// A strategy is changed while the shim runs, but for one that counts.
func TestStrategyIsChangedLive(t *testing.T) {
	b := newBench(t, Options{Settings: control.Settings{Strategy: balance.SourceHash, StartTimeout: time.Minute}})
	b.up(1)
	b.up(2)
	first := b.holder("source-hash")
	change := func(to balance.Strategy) error {
		err := b.apply(control.Settings{Strategy: to, StartTimeout: time.Minute})
		b.settled()
		return err
	}
	if err := change(balance.RoundRobin); err != nil {
		t.Fatal(err)
	}
	want(t, "round-robin", b.connect(10), map[int]int{1: 5, 2: 5})
	if err := change(balance.RandomTwo); err == nil {
		t.Error("random-two without counting: no error")
	}
	want(t, "still round-robin", b.connect(10), map[int]int{1: 5, 2: 5})
	if err := change(balance.First); err != nil {
		t.Fatal(err)
	}
	want(t, "first", b.connect(10), map[int]int{1: 10})
	if err := change(balance.SourceHash); err != nil {
		t.Fatal(err)
	}
	if again := b.holder("source-hash again"); again != first {
		t.Errorf("the client is at instance %d, was at %d", again, first)
	}
}
