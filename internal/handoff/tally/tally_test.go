package tally_test

import (
	"os"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/unitgen/unitgen/internal/handoff/tally"
)

func both(t *testing.T) (balancer, instance *tally.Tally, fd int) {
	t.Helper()
	balancer, fd, err := tally.New()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Close(fd) })
	t.Cleanup(balancer.Close)
	if instance, err = tally.Map(fd); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(instance.Close)
	return balancer, instance, fd
}

func TestEachSideSeesTheOther(t *testing.T) {
	balancer, instance, _ := both(t)
	if c, accepting, used := balancer.Look(); c != (tally.Counts{}) || accepting || used {
		t.Errorf("a new tally has %v, accepting is %t, used %t", c, accepting, used)
	}
	instance.Accepting()
	if _, accepting, _ := balancer.Look(); !accepting {
		t.Error("that it accepts is not seen")
	}
	want := tally.Counts{Answered: 7, Missed: 2, Closed: 1 << 40}
	if instance.Count(want) {
		t.Error("it is to tell, and nobody said so")
	}
	instance.Accepted()
	if c, accepting, used := balancer.Look(); c != want || accepting || !used {
		t.Errorf("the tally has %v, want %v; accepting is %t, used %t", c, want, accepting, used)
	}
	for _, tell := range []bool{true, false} {
		balancer.Tell(tell)
		if got := instance.Count(want); got != tell {
			t.Errorf("it is to tell: %t, want %t", got, tell)
		}
	}
}

// Neither side can make the other fault, and what is no tally is not mapped.
func TestHostile(t *testing.T) {
	_, _, fd := both(t)
	for _, size := range []int64{0, 8192} {
		if err := unix.Ftruncate(fd, size); err == nil {
			t.Errorf("its size can be made %d", size)
		}
	}
	unsealed, err := unix.MemfdCreate("unsealed", unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(unsealed)
	if err := unix.Ftruncate(unsealed, 4096); err != nil {
		t.Fatal(err)
	}
	small, err := unix.MemfdCreate("small", unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(small)
	if _, err := unix.FcntlInt(uintptr(small), unix.F_ADD_SEALS, unix.F_SEAL_SHRINK|unix.F_SEAL_GROW|unix.F_SEAL_SEAL); err != nil {
		t.Fatal(err)
	}
	file, err := os.CreateTemp(t.TempDir(), "")
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	for name, fd := range map[string]int{"unsealed": unsealed, "empty": small, "a file": int(file.Fd()), "nothing": -1} {
		if m, err := tally.Map(fd); err == nil {
			m.Close()
			t.Errorf("%s is mapped", name)
		}
	}
}
