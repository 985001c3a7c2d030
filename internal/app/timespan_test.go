package app

import (
	"testing"
	"time"
)

func TestParseTimeSpan(t *testing.T) {
	for s, want := range map[string]time.Duration{
		"90": 90 * time.Second, "0": 0, "30s": 30 * time.Second, " 1min 30s ": 90 * time.Second, "1min30s": 90 * time.Second,
		"1 h 5 m": 65 * time.Minute, "500ms": 500 * time.Millisecond, "20us": 20 * time.Microsecond, "1.5h": 90 * time.Minute,
		"0.1us": 0, "2d": 48 * time.Hour, "1w": 168 * time.Hour, "5 seconds 2 minutes": 125 * time.Second, "0.000001": time.Microsecond,
	} {
		if got, err := ParseTimeSpan(s); err != nil || got != want {
			t.Errorf("%q: got %v, %v; want %v", s, got, err, want)
		}
	}
	for _, s := range []string{"", " ", "infinity", "-1", "1x", "s", "1..5s", ".5s", "1.", "1e3", "1s-", "9999999999y", "10000000000000000000", "1 2 x", "1,5"} {
		if got, err := ParseTimeSpan(s); err == nil {
			t.Errorf("%q: got %v, want an error", s, got)
		}
	}
}

func TestFormatTimeSpan(t *testing.T) {
	for d, want := range map[time.Duration]string{
		0: "0", -time.Second: "0", time.Nanosecond: "0", 90 * time.Second: "1min 30s", 1500 * time.Millisecond: "1s 500ms",
		25 * time.Hour: "1d 1h", 10 * time.Minute: "10min",
	} {
		if got := FormatTimeSpan(d); got != want {
			t.Errorf("%v: got %q, want %q", d, got, want)
		}
	}
}

func TestParseTimeout(t *testing.T) {
	if d, err := ParseTimeout("--drain-timeout=", "5min"); err != nil || d != 5*time.Minute {
		t.Errorf("got %v, %v", d, err)
	}
	for s, want := range map[string]string{
		"soon": `--drain-timeout= must be a time span such as "30s" or "1min 30s", got "soon"`,
		"0":    "--drain-timeout= must be between 100ms and 1d, got 0",
		"2d":   "--drain-timeout= must be between 100ms and 1d, got 2d",
	} {
		if _, err := ParseTimeout("--drain-timeout=", s); err == nil || err.Error() != want {
			t.Errorf("%q: got %v, want %s", s, err, want)
		}
	}
}

func FuzzTimeSpan(f *testing.F) {
	f.Add("1min 30s")
	f.Add("0.3us 2y")
	f.Fuzz(func(t *testing.T, s string) {
		d, err := ParseTimeSpan(s)
		if err != nil {
			return
		}
		if back, err := ParseTimeSpan(FormatTimeSpan(d)); err != nil || back != d || d < 0 {
			t.Errorf("%q: %v came back as %v, %v", s, d, back, err)
		}
	})
}
