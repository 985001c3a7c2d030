package survey

import (
	"os"
	"os/exec"
	"testing"
	"time"
)

func TestStartOfProcess(t *testing.T) {
	before := time.Now()
	c := exec.Command("sleep", "60")
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { c.Process.Kill(); c.Wait() }()
	after := time.Now()
	const tick = 20 * time.Millisecond
	if got := newClock().start(c.Process.Pid); got.Before(before.Add(-tick)) || got.After(after.Add(tick)) {
		t.Errorf("started at %v, want between %v and %v", got, before, after)
	}
	for _, pid := range []int{0, -1, 1 << 30} {
		if got := newClock().start(pid); !got.IsZero() {
			t.Errorf("process %d: %v", pid, got)
		}
	}
	if got := newClock().start(os.Getpid()); !sameStart(got, newClock().start(os.Getpid())) {
		t.Error("two looks differ")
	}
}
