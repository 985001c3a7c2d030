// Package pace bounds how often something may happen that others can cause: a burst, and then once
// an interval. It keeps no goroutine and no timer, and costs a few nanoseconds.
package pace

import "time"

// Bucket is full at first. Each Take takes one out, and one comes back each Every. A Bucket is not
// safe for concurrent use; the zero Bucket is always empty.
type Bucket struct {
	Burst int
	Every time.Duration

	missing time.Duration // how long it takes until the bucket is full, counted from at
	at      time.Time
}

// Take reports whether the event may happen now, and counts it.
func (b *Bucket) Take(now time.Time) bool {
	if b.Wait(now) > 0 {
		return false
	}
	b.missing += b.Every
	return true
}

// Wait is how long it takes until Take succeeds.
func (b *Bucket) Wait(now time.Time) time.Duration {
	if b.Burst <= 0 || b.Every <= 0 {
		return time.Hour
	}
	b.missing = max(0, b.missing-now.Sub(b.at))
	b.at = now
	return max(0, b.missing-time.Duration(b.Burst-1)*b.Every)
}

// Full reports whether nothing has happened for so long that the bucket is full again.
func (b *Bucket) Full(now time.Time) bool {
	b.Wait(now)
	return b.missing == 0
}
