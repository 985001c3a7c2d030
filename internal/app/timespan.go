package app

import (
	"fmt"
	"math"
	"math/big"
	"strconv"
	"strings"
	"time"
)

// Bounds of the time-outs: below MinTimeout even a program that is ready at once may lose the race,
// and a value above MaxTimeout is more likely a slip of the unit than a wish.
const (
	MinTimeout = 100 * time.Millisecond
	MaxTimeout = 24 * time.Hour
)

// ParseTimeSpan reads a time span as systemd.time(7) describes it: "90" (seconds), "500ms", "1min
// 30s", "1.5h". Parts below a microsecond are cut off, as PID 1 does. "infinity" is refused; "0" is
// not.
func ParseTimeSpan(s string) (time.Duration, error) {
	rest := strings.Trim(s, " \t")
	if rest == "" {
		return 0, fmt.Errorf("parse time span %q: empty", s)
	}
	if rest == "infinity" {
		return 0, fmt.Errorf("parse time span %q: it must be finite", s)
	}
	var sum time.Duration
	for rest != "" {
		number, after := cutWhile(rest, func(r rune) bool { return r >= '0' && r <= '9' || r == '.' })
		unitName, tail := cutWhile(strings.TrimLeft(after, " \t"), func(r rune) bool { return !strings.ContainsRune(" \t0123456789.", r) })
		unit, ok := timeUnit(unitName)
		if !ok {
			return 0, fmt.Errorf("parse time span %q: unknown unit %q", s, unitName)
		}
		part, err := multiply(number, unit)
		if err != nil {
			return 0, fmt.Errorf("parse time span %q: %w", s, err)
		}
		if sum > math.MaxInt64-part {
			return 0, fmt.Errorf("parse time span %q: too long", s)
		}
		sum += part
		rest = strings.TrimLeft(tail, " \t")
	}
	return sum, nil
}

func cutWhile(s string, in func(rune) bool) (head, tail string) {
	end := strings.IndexFunc(s, func(r rune) bool { return !in(r) })
	if end < 0 {
		return s, ""
	}
	return s[:end], s[end:]
}

// multiply is exact for a decimal number exactly; a float64 would turn "0.3us" times a year into
// another microsecond.
func multiply(number string, unit time.Duration) (time.Duration, error) {
	whole, fraction, dotted := strings.Cut(number, ".")
	if whole == "" || dotted && fraction == "" || strings.Contains(fraction, ".") || len(number) > 40 {
		return 0, fmt.Errorf("%q is not a number", number)
	}
	r, ok := new(big.Rat).SetString(number)
	if !ok {
		return 0, fmt.Errorf("%q is not a number", number)
	}
	r.Mul(r, big.NewRat(int64(unit/time.Microsecond), 1))
	us := new(big.Int).Quo(r.Num(), r.Denom())
	if !us.IsInt64() || us.Int64() > math.MaxInt64/int64(time.Microsecond) {
		return 0, fmt.Errorf("too long")
	}
	return time.Duration(us.Int64()) * time.Microsecond, nil
}

// timeUnit knows the units of parse_time() in src/basic/time-util.c. A month is 30.44 days and a
// year 365.25 days there.
func timeUnit(name string) (time.Duration, bool) {
	switch name {
	case "", "s", "sec", "second", "seconds":
		return time.Second, true
	case "us", "usec", "µs", "μs":
		return time.Microsecond, true
	case "ms", "msec":
		return time.Millisecond, true
	case "m", "min", "minute", "minutes":
		return time.Minute, true
	case "h", "hr", "hour", "hours":
		return time.Hour, true
	case "d", "day", "days":
		return 24 * time.Hour, true
	case "w", "week", "weeks":
		return 7 * 24 * time.Hour, true
	case "M", "month", "months":
		return 2629800 * time.Second, true
	case "y", "year", "years":
		return 31557600 * time.Second, true
	}
	return 0, false
}

// FormatTimeSpan writes d so that systemd and ParseTimeSpan read it back: "1min 30s"; "0" for zero.
// It cuts off fractions of a microsecond, and writes a negative d as "0".
func FormatTimeSpan(d time.Duration) string {
	var parts []string
	for _, u := range []struct {
		size time.Duration
		name string
	}{{24 * time.Hour, "d"}, {time.Hour, "h"}, {time.Minute, "min"}, {time.Second, "s"}, {time.Millisecond, "ms"}, {time.Microsecond, "us"}} {
		if n := d / u.size; n > 0 {
			parts = append(parts, strconv.FormatInt(int64(n), 10)+u.name)
			d -= n * u.size
		}
	}
	if len(parts) == 0 {
		return "0"
	}
	return strings.Join(parts, " ")
}

// ParseTimeout reads the value of a time-out option of the command line, for example option
// "--drain-timeout=". It refuses what is outside MinTimeout and MaxTimeout, and so also 0, which in
// an App stands for the default.
func ParseTimeout(option, s string) (time.Duration, error) {
	d, err := ParseTimeSpan(s)
	if err != nil {
		return 0, inputErrorf(option+"30s", "%s must be a time span such as \"30s\" or \"1min 30s\", got %q", option, s)
	}
	return d, checkTimeout(option, d)
}

func checkTimeout(option string, d time.Duration) error {
	if d < MinTimeout || d > MaxTimeout {
		return inputErrorf("", "%s must be between %s and %s, got %s", option, FormatTimeSpan(MinTimeout), FormatTimeSpan(MaxTimeout), FormatTimeSpan(d))
	}
	return nil
}
