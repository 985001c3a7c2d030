package main

import (
	"slices"
	"strings"
	"testing"

	"github.com/unitgen/unitgen/internal/app"
	"github.com/unitgen/unitgen/internal/command"
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
		if got := nodeEnvironment(c.given, onHandoff("/usr/bin/node", "x.js", "--permission"), 5, c.script); !slices.Equal(got, c.want) {
			t.Errorf("of %q and %q came\n%q, want\n%q", c.given, c.script, got, c.want)
		}
	}
}

// onHandoff are the options of instance 3 on the handoff path.
func onHandoff(words ...string) command.Options {
	return command.Options{Instance: 3, Path: string(app.PathHandoff), Command: words}
}

// A program that opens its port by itself is no worker of a cluster, and has a cluster of its own
// if it likes.
func TestNodeIsNoWorkerOnTheSteerPath(t *testing.T) {
	o := command.Options{Instance: 3, Path: string(app.PathSteer), Command: []string{"/usr/bin/node", "x.js"}}
	want := []string{"NODE_CHANNEL_FD=5", "NODE_CHANNEL_SERIALIZATION_MODE=json", "NODE_APP_INSTANCE=2"}
	if got := nodeEnvironment([]string{"NODE_UNIQUE_ID=9"}, o, 5, ""); !slices.Equal(got, want) {
		t.Errorf("it starts with %q, want %q", got, want)
	}
}

// Under Node's permission model the preload may be read, however that was turned on.
func TestNodeEnvironmentRestricted(t *testing.T) {
	const script = "/usr/lib/unitgen/node/drain.cjs"
	want := "NODE_OPTIONS=--require=" + script + " --allow-fs-read=" + script
	for _, environ := range nodeEnvironment(nil, onHandoff("/usr/bin/node", "--no-warnings", "--permission", "x.js"), 5, script) {
		if strings.HasPrefix(environ, "NODE_OPTIONS=") && environ != want {
			t.Errorf("by the command: %q, want %q", environ, want)
		}
	}
	got := nodeEnvironment([]string{"NODE_OPTIONS=--experimental-permission"}, onHandoff("/usr/bin/node", "x.js"), 5, script)
	if want += " --experimental-permission"; !slices.Contains(got, want) {
		t.Errorf("by NODE_OPTIONS: %q, want %q", got, want)
	}
}
