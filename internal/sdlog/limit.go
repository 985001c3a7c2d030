package sdlog

import (
	"context"
	"log/slog"
	"sync"
	"time"

	"github.com/unitgen/unitgen/internal/pace"
)

// How many lines others can cause: so many at once, and then one an interval.
const (
	limitBurst = 10
	limitEvery = 10 * time.Second
)

// Limited returns a logger for lines that an instance or a stranger can cause as often as it likes.
// It passes on a burst of ten lines, and then one each ten seconds, which says how many were left
// out before it, as "suppressed". Loggers made of it share its limit.
func Limited(log *slog.Logger) *slog.Logger {
	return slog.New(limited{log.Handler(), &allowance{bucket: pace.Bucket{Burst: limitBurst, Every: limitEvery}}})
}

type limited struct {
	slog.Handler
	*allowance
}

// allowance is what the loggers share that are made of one.
type allowance struct {
	mu         sync.Mutex
	bucket     pace.Bucket
	suppressed int
}

// Handle is of slog.Handler.
func (l limited) Handle(ctx context.Context, r slog.Record) error {
	l.mu.Lock()
	ok := l.bucket.Take(r.Time)
	before := l.suppressed
	l.suppressed++
	if ok {
		l.suppressed = 0
	}
	l.mu.Unlock()
	switch {
	case !ok:
		return nil
	case before > 0:
		r = r.Clone()
		r.AddAttrs(slog.Int("suppressed", before))
	}
	return l.Handler.Handle(ctx, r)
}

// WithAttrs is of slog.Handler.
func (l limited) WithAttrs(attrs []slog.Attr) slog.Handler {
	return limited{l.Handler.WithAttrs(attrs), l.allowance}
}

// WithGroup is of slog.Handler.
func (l limited) WithGroup(name string) slog.Handler {
	return limited{l.Handler.WithGroup(name), l.allowance}
}
