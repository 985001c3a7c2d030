package main

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

func TestNodeEnvironment(t *testing.T) {
	const script = "/usr/lib/unitgen/node/drain.cjs"
	for _, c := range []struct {
		script string
		given  []string
		want   []string
	}{
		{script, []string{"A=1"}, []string{
			"A=1", "NODE_OPTIONS=--require=" + script, "NODE_CHANNEL_FD=5", "NODE_CHANNEL_SERIALIZATION_MODE=json",
			"NODE_UNIQUE_ID=3", "NODE_APP_INSTANCE=2",
		}},
		// What the admin has set stays, and what another primary has set does not.
		{script, []string{"NODE_OPTIONS=--max-old-space-size=64", "NODE_UNIQUE_ID=9", "NODE_CHANNEL_FD=9", "NODE_APP_INSTANCE=7"}, []string{
			"NODE_APP_INSTANCE=7", "NODE_OPTIONS=--require=" + script + " --max-old-space-size=64",
			"NODE_CHANNEL_FD=5", "NODE_CHANNEL_SERIALIZATION_MODE=json", "NODE_UNIQUE_ID=3",
		}},
		{"", []string{"NODE_OPTIONS=--inspect"}, []string{
			"NODE_OPTIONS=--inspect", "NODE_CHANNEL_FD=5", "NODE_CHANNEL_SERIALIZATION_MODE=json", "NODE_UNIQUE_ID=3", "NODE_APP_INSTANCE=2",
		}},
		{`/my "lib"/x.cjs`, nil, []string{
			`NODE_OPTIONS="--require=/my \"lib\"/x.cjs"`, "NODE_CHANNEL_FD=5", "NODE_CHANNEL_SERIALIZATION_MODE=json",
			"NODE_UNIQUE_ID=3", "NODE_APP_INSTANCE=2",
		}},
	} {
		if got := nodeEnvironment(c.given, []string{"/usr/bin/node", "x.js", "--permission"}, 3, 5, c.script); !slices.Equal(got, c.want) {
			t.Errorf("of %q and %q came\n%q, want\n%q", c.given, c.script, got, c.want)
		}
	}
}

// Under Node's permission model the preload may be read, however that was turned on.
func TestNodeEnvironmentRestricted(t *testing.T) {
	const script = "/usr/lib/unitgen/node/drain.cjs"
	want := "NODE_OPTIONS=--require=" + script + " --allow-fs-read=" + script
	for _, environ := range nodeEnvironment(nil, []string{"/usr/bin/node", "--no-warnings", "--permission", "x.js"}, 3, 5, script) {
		if strings.HasPrefix(environ, "NODE_OPTIONS=") && environ != want {
			t.Errorf("by the command: %q, want %q", environ, want)
		}
	}
	got := nodeEnvironment([]string{"NODE_OPTIONS=--experimental-permission"}, []string{"/usr/bin/node", "x.js"}, 3, 5, script)
	if want += " --experimental-permission"; !slices.Contains(got, want) {
		t.Errorf("by NODE_OPTIONS: %q, want %q", got, want)
	}
}

// What is missing is named: the program, or the interpreter of a script.
func TestMissingProgramIsNamed(t *testing.T) {
	dir := t.TempDir()
	script := filepath.Join(dir, "script")
	if err := os.WriteFile(script, []byte("#!/no/such/node\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	for program, want := range map[string]string{
		filepath.Join(dir, "node"): "no such file or directory; if it is elsewhere now: unitgen web -- COMMAND",
		script:                     `it is a script for "/no/such/node": no such file`,
	} {
		if err := missing(options{app: "web", command: []string{program}}, unix.ENOENT); !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", program, err, want)
		}
	}
}
