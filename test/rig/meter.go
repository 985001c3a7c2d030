package rig

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// cpuAttr is the attribute (testing.T.Attr) with which a test says how many seconds of CPU time it
// took, such as "1.25". Command tally adds them up.
const cpuAttr = "cpu"

// meter shares out CPU time among tests. What a container and its commands use is shared by the
// tests of that container that run at the time, in equal parts, and what this process uses by all
// that run: the sum is exact, and the parts of tests that run side by side are estimates. A test
// that has subtests running is charged nothing meanwhile.
type meter struct {
	mu      sync.Mutex
	running map[string]time.Duration // by test: what it has used
	guests  map[*Container]*guest
	spent   time.Duration // by programs that this process has started on the host, see Spend
	own     time.Duration // by this process and these programs, at the last reading
}

type guest struct {
	owner string // name of the test that booted it
	last  time.Duration
}

// cpu is the one of this process, as getrusage(2) is.
var cpu = meter{running: make(map[string]time.Duration), guests: make(map[*Container]*guest)}

// Charge charges t for CPU time from now on until its cleanups that are registered later have run,
// and has it say so at its end. Boot and Table do so for their tests. A test that is charged
// already stays so.
func Charge(t testing.TB) {
	name := t.Name()
	if !cpu.begin(name) {
		return
	}
	t.Cleanup(func() { t.Attr(cpuAttr, fmt.Sprintf("%.2f", cpu.end(name).Seconds())) })
}

// Spend charges the tests that run for a program that has ended, such as a compiler. Commands in
// containers are charged for without it.
func Spend(state *os.ProcessState) {
	if state == nil {
		return
	}
	cpu.mu.Lock()
	defer cpu.mu.Unlock()
	cpu.spent += state.UserTime() + state.SystemTime()
}

func (m *meter) begin(test string) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	if _, found := m.running[test]; found {
		return false
	}
	m.settle()
	m.running[test] = 0
	return true
}

func (m *meter) end(test string) time.Duration {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.settle()
	used := m.running[test]
	delete(m.running, test)
	return used
}

// add begins to read what c uses, on behalf of the test that booted it.
func (m *meter) add(c *Container, owner string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.guests[c] = &guest{owner: owner}
}

// remove reads c for the last time; its cgroup still exists. It is harmless for a container that
// was not added.
func (m *meter) remove(c *Container) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.settle()
	delete(m.guests, c)
}

// settle charges for what was used since the last reading. The caller holds mu.
func (m *meter) settle() {
	own := m.spent
	var usage syscall.Rusage
	if syscall.Getrusage(syscall.RUSAGE_SELF, &usage) == nil {
		own += time.Duration(usage.Utime.Nano() + usage.Stime.Nano())
	}
	m.share("", own-m.own)
	m.own = own
	for c, g := range m.guests {
		if now, err := cgroupCPU(c.cgroups[0]); err == nil {
			m.share(g.owner, now-g.last)
			g.last = now
		}
	}
}

// share divides used among the running tests below owner, of which those that have running subtests
// get nothing; else among those that owner is a part of.
func (m *meter) share(owner string, used time.Duration) {
	var charged []string
	for test := range m.running {
		if below(test, owner) && !m.hasRunning(test) {
			charged = append(charged, test)
		}
	}
	if charged == nil {
		for test := range m.running {
			if below(owner, test) {
				charged = append(charged, test)
			}
		}
	}
	for _, test := range charged {
		m.running[test] += used / time.Duration(len(charged))
	}
}

// hasRunning says that a subtest of test runs.
func (m *meter) hasRunning(test string) bool {
	for other := range m.running {
		if other != test && below(other, test) {
			return true
		}
	}
	return false
}

// below says that test is owner or one of its subtests; all are below "".
func below(test, owner string) bool {
	return owner == "" || test == owner || strings.HasPrefix(test, owner+"/")
}

// cgroupCPU is what all processes that ever were below a cgroup2 directory have used.
func cgroupCPU(dir string) (time.Duration, error) {
	text, err := os.ReadFile(filepath.Join(dir, "cpu.stat"))
	if err != nil {
		return 0, fmt.Errorf("read CPU time of cgroup: %w", err)
	}
	for line := range strings.Lines(string(text)) {
		if value, found := strings.CutPrefix(line, "usage_usec "); found {
			usec, err := strconv.ParseInt(strings.TrimSpace(value), 10, 64)
			return time.Duration(usec) * time.Microsecond, err
		}
	}
	return 0, fmt.Errorf("read CPU time of cgroup %q: no usage_usec in cpu.stat", dir)
}
