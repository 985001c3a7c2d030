package survey

import (
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// clock turns the start of a process, which the kernel counts from its boot, into a time.
type clock struct{ booted time.Time }

func newClock() clock {
	var since unix.Timespec
	now := time.Now()
	if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &since); err != nil {
		return clock{}
	}
	return clock{now.Add(-time.Duration(since.Nano()))}
}

// userHZ is the unit of times in /proc (USER_HZ), the same on all architectures that Go knows.
const userHZ = 100

// start is when a process was started, to 10 ms; zero if that cannot be seen.
func (c clock) start(pid int) time.Time {
	if pid <= 0 || c.booted.IsZero() {
		return time.Time{}
	}
	text, err := readSmall("/proc/" + strconv.Itoa(pid) + "/stat")
	if err != nil {
		return time.Time{}
	}
	// The name, in parentheses, may hold anything; starttime is field 22 of proc_pid_stat(5), and
	// the name field 2.
	fields := strings.Fields(text[strings.LastIndexByte(text, ')')+1:])
	if len(fields) < 20 {
		return time.Time{}
	}
	ticks, err := strconv.ParseInt(fields[19], 10, 64)
	if err != nil {
		return time.Time{}
	}
	return c.booted.Add(time.Duration(ticks) * (time.Second / userHZ))
}

// sameStart says whether two looks have seen the same start. The clock may be set between them, by
// a little.
func sameStart(a, b time.Time) bool { return a.Sub(b).Abs() < time.Second }
