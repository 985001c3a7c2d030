package listenfds

import (
	"errors"
	"slices"
	"strconv"
	"strings"
	"testing"
)

func TestParseListen(t *testing.T) {
	ours := func() (uint64, bool, error) { return 9001, true, nil }
	long := strings.Repeat("n", maxName+1)
	tests := []struct {
		name  string
		env   string // KEY=VALUE, separated by "|"
		count int
		names []string
		err   string // substring; with "!" in front also ErrNotPassed
	}{
		{name: "one", env: "LISTEN_PID=42|LISTEN_FDS=1", count: 1},
		{name: "names", env: "LISTEN_PID=42|LISTEN_FDS=3|LISTEN_FDNAMES=http:http:admin.socket", count: 3, names: []string{"http", "http", "admin.socket"}},
		{name: "empty name", env: "LISTEN_PID=42|LISTEN_FDS=2|LISTEN_FDNAMES=:b", count: 2, names: []string{"", "b"}},
		{name: "pidfd id", env: "LISTEN_PID=42|LISTEN_PIDFDID=9001|LISTEN_FDS=1", count: 1},
		{name: "most", env: "LISTEN_PID=42|LISTEN_FDS=1048576", count: 1 << 20},

		{name: "nothing", env: "", err: "!LISTEN_PID is not set"},
		{name: "other process", env: "LISTEN_PID=43|LISTEN_FDS=1", err: "!LISTEN_PID=43 is another process than this one, 42"},
		{name: "reused PID", env: "LISTEN_PID=42|LISTEN_PIDFDID=9002|LISTEN_FDS=1", err: "!LISTEN_PIDFDID=9002 is another process"},
		{name: "no count", env: "LISTEN_PID=42", err: "!LISTEN_FDS is not set"},

		{name: "bad PID", env: "LISTEN_PID=x|LISTEN_FDS=1", err: `parse LISTEN_PID="x": invalid syntax`},
		{name: "empty PID", env: "LISTEN_PID=|LISTEN_FDS=1", err: `parse LISTEN_PID="": invalid syntax`},
		{name: "negative PID", env: "LISTEN_PID=-42|LISTEN_FDS=1", err: "invalid syntax"},
		{name: "signed PID", env: "LISTEN_PID=+42|LISTEN_FDS=1", err: "invalid syntax"},
		{name: "spaced PID", env: "LISTEN_PID= 42|LISTEN_FDS=1", err: "invalid syntax"},
		{name: "bad pidfd id", env: "LISTEN_PID=42|LISTEN_PIDFDID=x|LISTEN_FDS=1", err: `parse LISTEN_PIDFDID="x"`},
		{name: "zero", env: "LISTEN_PID=42|LISTEN_FDS=0", err: "must not be zero"},
		{name: "negative", env: "LISTEN_PID=42|LISTEN_FDS=-1", err: "invalid syntax"},
		{name: "hexadecimal", env: "LISTEN_PID=42|LISTEN_FDS=0x1", err: "invalid syntax"},
		{name: "too many", env: "LISTEN_PID=42|LISTEN_FDS=1048577", err: "more than 1048576"},
		{name: "overflow", env: "LISTEN_PID=42|LISTEN_FDS=4294967297", err: "value out of range"},
		{name: "too few names", env: "LISTEN_PID=42|LISTEN_FDS=2|LISTEN_FDNAMES=a", err: "1 names for LISTEN_FDS=2"},
		{name: "too many names", env: "LISTEN_PID=42|LISTEN_FDS=1|LISTEN_FDNAMES=a:b", err: "2 names for LISTEN_FDS=1"},
		{name: "control character", env: "LISTEN_PID=42|LISTEN_FDS=1|LISTEN_FDNAMES=a\tb", err: "byte 0x09 is not allowed"},
		{name: "long name", env: "LISTEN_PID=42|LISTEN_FDS=1|LISTEN_FDNAMES=" + long, err: "longer than 255 bytes"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			got, err := parseListen(variables(test.env), 42, ours)
			if test.err != "" {
				want, absent := strings.CutPrefix(test.err, "!")
				if err == nil || !strings.Contains(err.Error(), want) || errors.Is(err, ErrNotPassed) != absent {
					t.Fatalf("got error %v, want one with %q, not passed: %t", err, want, absent)
				}
				return
			}
			if err != nil || got.count != test.count || !slices.Equal(got.names, test.names) {
				t.Fatalf("got %+v, %v, want %d %q", got, err, test.count, test.names)
			}
		})
	}
}

func TestParseListenWithoutPidfs(t *testing.T) {
	lookup := variables("LISTEN_PID=42|LISTEN_PIDFDID=7|LISTEN_FDS=1")
	if _, err := parseListen(lookup, 42, func() (uint64, bool, error) { return 0, false, nil }); err != nil {
		t.Errorf("kernel without ids: %v, want the id ignored", err)
	}
	failed := errors.New("pidfd_open: too many open files")
	if _, err := parseListen(lookup, 42, func() (uint64, bool, error) { return 0, false, failed }); !errors.Is(err, failed) {
		t.Errorf("got error %v, want %v", err, failed)
	}
}

func FuzzParseListen(f *testing.F) {
	f.Add("42", "9001", "2", "a:b", uint8(15))
	f.Add("42", "", "1", "", uint8(5))
	f.Add("43", "1", "1048576", "::::", uint8(13))
	f.Add("+42", "-1", "0x3", "a\nb", uint8(15))
	f.Fuzz(func(t *testing.T, pid, pidfdid, fds, names string, set uint8) {
		vars := map[string]string{}
		for i, v := range []struct{ key, value string }{
			{"LISTEN_PID", pid}, {"LISTEN_PIDFDID", pidfdid}, {"LISTEN_FDS", fds}, {"LISTEN_FDNAMES", names},
		} {
			if set&(1<<i) != 0 {
				vars[v.key] = v.value
			}
		}
		lookup := func(key string) (string, bool) { v, ok := vars[key]; return v, ok }
		got, err := parseListen(lookup, 42, func() (uint64, bool, error) { return 9001, true, nil })
		if err != nil {
			if got.count != 0 && got.names != nil {
				t.Fatalf("got %+v together with error %v", got, err)
			}
			return
		}
		if n, err := strconv.Atoi(fds); err != nil || n != got.count || n < 1 || n > maxDescriptors {
			t.Fatalf("LISTEN_FDS=%q gave %d", fds, got.count)
		}
		if n, err := strconv.Atoi(pid); err != nil || n != 42 {
			t.Fatalf("LISTEN_PID=%q was accepted by process 42", pid)
		}
		if _, named := vars["LISTEN_FDNAMES"]; named != (got.names != nil) {
			t.Fatalf("LISTEN_FDNAMES set: %t, names: %q", named, got.names)
		}
		if got.names != nil && (len(got.names) != got.count || strings.Join(got.names, ":") != names) {
			t.Fatalf("LISTEN_FDNAMES=%q gave %q for %d", names, got.names, got.count)
		}
	})
}

// variables are assignments that are separated by "|".
func variables(text string) (lookup func(string) (string, bool)) {
	vars := map[string]string{}
	for _, assignment := range strings.Split(text, "|") {
		if key, value, ok := strings.Cut(assignment, "="); ok {
			vars[key] = value
		}
	}
	return func(key string) (string, bool) { v, ok := vars[key]; return v, ok }
}
