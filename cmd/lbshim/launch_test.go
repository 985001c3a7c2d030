package main

import (
	"slices"
	"testing"
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
		if got := nodeEnvironment(c.given, 3, 5, c.script); !slices.Equal(got, c.want) {
			t.Errorf("of %q and %q came\n%q, want\n%q", c.given, c.script, got, c.want)
		}
	}
}
