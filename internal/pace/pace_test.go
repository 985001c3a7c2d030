package pace

import (
	"testing"
	"time"
)

func TestBucket(t *testing.T) {
	now := time.Now()
	b := Bucket{Burst: 3, Every: time.Second}
	if !b.Full(now) {
		t.Error("a new bucket is not full")
	}
	for i := range 3 {
		if !b.Take(now) {
			t.Errorf("number %d of the burst is refused", i+1)
		}
	}
	if b.Take(now) || b.Full(now) {
		t.Error("the burst has no end")
	}
	if wait := b.Wait(now); wait != time.Second {
		t.Errorf("the next one may come in %s, want 1s", wait)
	}
	now = now.Add(time.Second)
	if !b.Take(now) || b.Take(now) {
		t.Error("not exactly one has come back within a second")
	}
	now = now.Add(time.Hour)
	if !b.Full(now) {
		t.Error("it is not full again")
	}
	taken := 0
	for b.Take(now) {
		taken++
	}
	if taken != 3 {
		t.Errorf("the next burst has %d, want 3", taken)
	}
	if (&Bucket{}).Take(now) {
		t.Error("the zero Bucket lets something happen")
	}
}
