package lifecycle

import (
	"errors"
	"net"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/unitgen/unitgen/internal/sockdiag"
)

// A drain that has lost its shim ends by the shim's rule: what each count after the other says, and
// when it ends.
func TestAloneEndsByTheRuleOfTheShim(t *testing.T) {
	const never = sockdiag.Never
	busy, idle := sockdiag.Stat{Open: 2, Busy: 1, Waiting: never}, sockdiag.Stat{Open: 1}
	for _, tt := range []struct {
		name     string
		drain    Alone
		counts   []sockdiag.Stat // the last one stays
		want     time.Duration
		timedOut bool
	}{
		{"nothing is open", Alone{Limit: time.Minute}, []sockdiag.Stat{{}}, 0, false},
		{"a request ends", Alone{Limit: time.Minute}, []sockdiag.Stat{busy, busy, idle}, 2 * countEvery, false},
		{"one may be there", Alone{Limit: time.Minute}, []sockdiag.Stat{{Open: 1, Unsure: 1}, idle}, countEvery, false},
		{"one waits in a queue", Alone{Limit: time.Minute}, []sockdiag.Stat{{Open: 1, Queued: 1}, idle}, countEvery, false},
		{"it has no end", Alone{Limit: time.Second}, []sockdiag.Stat{busy}, time.Second + countEvery, true},
		{"graceful: answered since", Alone{Limit: time.Minute, Graceful: true, Settle: time.Second},
			[]sockdiag.Stat{{Open: 1, Busy: 1, Waiting: 10 * time.Millisecond}}, time.Second, false},
		{"graceful: a request has waited for longer", Alone{Limit: 2 * time.Second, Graceful: true},
			[]sockdiag.Stat{busy}, 2*time.Second + countEvery, true},
		{"graceful: one waits in a queue", Alone{Limit: time.Minute, Graceful: true},
			[]sockdiag.Stat{{Open: 1, Queued: 1}, idle}, countEvery, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				tt.drain.Began = time.Now()
				tt.drain.Count = func() (sockdiag.Stat, error) {
					now := tt.counts[0]
					if len(tt.counts) > 1 {
						tt.counts = tt.counts[1:]
					}
					return now, nil
				}
				_, timedOut, err := tt.drain.Wait(t.Context())
				if took := time.Since(tt.drain.Began); err != nil || took != tt.want || timedOut != tt.timedOut {
					t.Errorf("ended after %s, timed out: %v, %v; want %s, %v", took, timedOut, err, tt.want, tt.timedOut)
				}
			})
		})
	}
}

// The kernel's own table: accepted connections alone count, those of the app's paths.
func TestCountUnix(t *testing.T) {
	path := filepath.Join(t.TempDir(), "a b")
	ln, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	expect := func(want int) {
		t.Helper()
		table, err := os.Open("/proc/self/net/unix")
		if err != nil {
			t.Fatal(err)
		}
		defer table.Close()
		if n, err := CountUnix(table, []string{"/other", path}); n != (sockdiag.Stat{Open: want, Busy: want}) || err != nil {
			t.Errorf("%+v, %v; want %d", n, err, want)
		}
	}
	expect(0)
	client, err := net.Dial("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	expect(0)
	accepted, err := ln.Accept()
	if err != nil {
		t.Fatal(err)
	}
	expect(1)
	accepted.Close()
	expect(0)
}

// A drain that cannot count says so at once: it would hold the stop for nothing.
func TestAloneWithoutCounts(t *testing.T) {
	want := errors.New("no table")
	d := Alone{Limit: time.Hour, Count: func() (sockdiag.Stat, error) { return sockdiag.Stat{}, want }}
	if _, _, err := d.Wait(t.Context()); !errors.Is(err, want) {
		t.Errorf("error %v, want %v", err, want)
	}
}

func TestListenersOfASocketUnit(t *testing.T) {
	pair := func(kind, address string) []any { return []any{kind, address} }
	for _, tt := range []struct {
		listen [][]any
		want   []uint16
		paths  []string
		bad    bool
	}{
		{nil, nil, nil, false},
		{[][]any{pair("Stream", "[::]:3000"), pair("Stream", "127.0.0.1:80"), pair("Stream", "0.0.0.0:3000")}, []uint16{80, 3000}, nil, false},
		{[][]any{pair("Stream", "[fe80::1]:80%eth0"), pair("Stream", "[fe80::1%eth0]:81")}, []uint16{80, 81}, nil, false},
		{[][]any{pair("Stream", "/run/app.sock"), pair("Stream", "@app"), pair("Netlink", "inet-diag 0")}, nil, []string{"/run/app.sock", "@app"}, false},
		{[][]any{pair("Stream", "[::]:70000")}, nil, nil, true},
		{[][]any{pair("Stream", "somewhere")}, nil, nil, true},
		{[][]any{{"Stream"}}, nil, nil, true},
	} {
		if got, paths, err := listenersOf(tt.listen); !slices.Equal(got, tt.want) || !slices.Equal(paths, tt.paths) || (err != nil) != tt.bad {
			t.Errorf("%v: %v, %q, %v", tt.listen, got, paths, err)
		}
	}
}
