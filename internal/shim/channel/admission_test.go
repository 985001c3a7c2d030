package channel

import (
	"testing"
	"time"
)

// A user who connects without end gets a fixed share, and takes nothing from others.
func TestAdmission(t *testing.T) {
	a := newAdmission()
	now := time.Now()
	take := func(uid uint32) (taken int) {
		for a.of(uid, now).Take(now) {
			taken++
		}
		return taken
	}
	if n := take(1000); n != admitBurst {
		t.Errorf("one user is looked up %d times, want %d", n, admitBurst)
	}
	if n := take(1001); n != admitBurst {
		t.Errorf("another user is looked up %d times, want %d", n, admitBurst)
	}
	all := 0
	for uid := range uint32(2 * maxUsers) {
		all += take(100_000 + uid)
	}
	if most := (maxUsers + 1) * admitBurst; all > most || len(a.users) > maxUsers {
		t.Errorf("many users are looked up %d times, want at most %d; %d are told apart", all, most, len(a.users))
	}
	now = now.Add(time.Hour)
	if n := take(1_000_000); n != admitBurst || len(a.users) != 1 {
		t.Errorf("an hour later a user is looked up %d times, and %d are told apart", n, len(a.users))
	}
}
