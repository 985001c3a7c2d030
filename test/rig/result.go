package rig

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"os"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// FailureKind says how a request failed.
type FailureKind string

// The kinds of failure. EOF is a connection that the server closed before the answer was complete.
const (
	Refused   FailureKind = "refused"
	Reset     FailureKind = "reset"
	Timeout   FailureKind = "timeout"
	EOF       FailureKind = "EOF"
	BadStatus FailureKind = "bad status"
	BadBody   FailureKind = "bad body"
	Other     FailureKind = "other"
)

// Failure sums up the failures of one kind.
type Failure struct {
	Count    int
	First    string // the first one's error
	At, Last time.Time
}

// Result is what a load has seen. Every request is counted once, in OK or in one of Failures.
type Result struct {
	Elapsed     time.Duration
	OK          int
	Failures    map[FailureKind]Failure
	Connections int // connections made
	// Stale counts requests that were sent again because the server closed a kept connection before
	// the first byte of the answer.
	Stale int
	// Instances and PIDs count the answers whose body has "instance=NAME" and "pid=NUMBER".
	Instances map[string]int
	PIDs      map[int]int
	Slowest   time.Duration // of the requests that succeeded or failed
	SlowestAt time.Time     // when that one began
}

func newResult() Result {
	return Result{Failures: map[FailureKind]Failure{}, Instances: map[string]int{}, PIDs: map[int]int{}}
}

func (r Result) clone() Result {
	r.Failures, r.Instances, r.PIDs = maps.Clone(r.Failures), maps.Clone(r.Instances), maps.Clone(r.PIDs)
	return r
}

// Failed returns the number of requests that failed.
func (r Result) Failed() int {
	n := 0
	for _, f := range r.Failures {
		n += f.Count
	}
	return n
}

// LostAtMost says whether no more connections broke than most, those on which something was going
// on when it was killed, and nothing else happened to any request.
func (r Result) LostAtMost(most int) bool {
	lost := r.Failures[EOF].Count + r.Failures[Reset].Count
	return r.OK > 0 && r.Failed() == lost && lost <= most
}

// String returns one line of figures and one more per kind of failure.
func (r Result) String() string {
	var b strings.Builder
	rate := 0.0
	if r.Elapsed > 0 {
		rate = float64(r.OK+r.Failed()) / r.Elapsed.Seconds()
	}
	fmt.Fprintf(&b, "%d ok, %d failed, %d stale in %s (%.0f/s, %d connections, %d processes), slowest %s at %s",
		r.OK, r.Failed(), r.Stale, r.Elapsed.Round(time.Millisecond), rate, r.Connections, len(r.PIDs),
		r.Slowest.Round(time.Microsecond), r.SlowestAt.Format("15:04:05.000"))
	for _, name := range slices.Sorted(maps.Keys(r.Instances)) {
		fmt.Fprintf(&b, ", instance %s: %d", name, r.Instances[name])
	}
	for _, kind := range slices.Sorted(maps.Keys(r.Failures)) {
		f := r.Failures[kind]
		fmt.Fprintf(&b, "\n  %s: %d, from %s to %s, first: %s", kind, f.Count,
			f.At.Format("15:04:05.000"), f.Last.Format("15:04:05.000"), f.First)
	}
	return b.String()
}

// add counts one request that took from began to ended.
func (r *Result) add(began, ended time.Time, body []byte, err error) {
	if took := ended.Sub(began); took > r.Slowest {
		r.Slowest, r.SlowestAt = took, began
	}
	if err != nil {
		kind := failureKind(err)
		f := r.Failures[kind]
		if f.Count == 0 {
			f.First, f.At = err.Error(), ended
		}
		f.Count++
		f.Last = ended
		r.Failures[kind] = f
		return
	}
	r.OK++
	if name := field(body, "instance="); name != "" {
		r.Instances[name]++
	}
	if pid, err := strconv.Atoi(field(body, "pid=")); err == nil {
		r.PIDs[pid]++
	}
}

// field returns what follows key in body up to white space, or "".
func field(body []byte, key string) string {
	for _, word := range strings.Fields(string(body)) {
		if value, ok := strings.CutPrefix(word, key); ok {
			return value
		}
	}
	return ""
}

// answerError is an answer that came, but was not the right one.
type answerError struct {
	kind FailureKind
	text string
}

func (e *answerError) Error() string { return e.text }

// checkAnswer returns an error unless status is 200 and body contains want.
func checkAnswer(status int, body []byte, want string) error {
	const shown = 100
	text := string(body[:min(len(body), shown)])
	switch {
	case status != 200:
		return &answerError{BadStatus, fmt.Sprintf("status %d: %q", status, text)}
	case !strings.Contains(string(body), want):
		return &answerError{BadBody, fmt.Sprintf("body %q, want %q in it", text, want)}
	}
	return nil
}

// isClosed reports whether err says that the server has closed the connection, in whatever way.
func isClosed(err error) bool {
	kind := failureKind(err)
	return kind == EOF || kind == Reset
}

func failureKind(err error) FailureKind {
	var answer *answerError
	var netErr net.Error
	switch {
	case errors.As(err, &answer):
		return answer.kind
	case errors.Is(err, syscall.ECONNREFUSED):
		return Refused
	case errors.Is(err, syscall.ECONNRESET), errors.Is(err, syscall.EPIPE):
		return Reset
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		return EOF
	case errors.Is(err, os.ErrDeadlineExceeded), errors.Is(err, context.DeadlineExceeded),
		errors.As(err, &netErr) && netErr.Timeout():
		return Timeout
	}
	return Other
}
