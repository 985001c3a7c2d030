package app

import (
	"strings"
	"testing"
)

func TestDataPath(t *testing.T) {
	unix := []Listen{{Port: 3000}, {Unix: "/run/x"}}
	for _, c := range []struct {
		app      App
		path     Path
		strategy Strategy
		warning  string // part of it; empty for none
	}{
		{App{}, PathSteer, RoundRobin, ""},
		{App{Path: PathAuto, Strategy: First}, PathSteer, First, ""},
		{App{Path: PathHandoff}, PathHandoff, LeastConnections, ""},
		{App{Path: PathHandoff, Strategy: RoundRobin}, PathHandoff, RoundRobin, ""},
		{App{Kind: KindHandoff}, PathHandoff, LeastConnections, ""},
		{App{Listen: unix}, PathHandoff, LeastConnections, "--listen=/run/x takes the handoff path"},
		{App{Strategy: SourceHash}, PathSteer, SourceHash, ""},
		{App{Strategy: RandomTwo, Kind: KindNode}, PathSteer, RandomTwo, ""},
		{App{Strategy: SourceHash, Kind: KindNode, UserUnits: true}, PathHandoff, SourceHash, ""},
		{App{Strategy: LeastConnections, Kind: KindNode, UserUnits: true}, PathHandoff, LeastConnections, ""},
		{App{Strategy: First, Kind: KindNode, UserUnits: true}, PathSteer, First, ""},
		{App{Kind: KindHandoff, Strategy: RandomTwo}, PathHandoff, RandomTwo, ""},
	} {
		if path, strategy := c.app.DataPath(), c.app.StrategyOrDefault(); path != c.path || strategy != c.strategy {
			t.Errorf("%+v: path %s, strategy %s, want %s, %s", c.app, path, strategy, c.path, c.strategy)
		}
		warnings := strings.Join(c.app.Warnings(), "\n")
		if (warnings == "") != (c.warning == "") || !strings.Contains(warnings, c.warning) {
			t.Errorf("%+v: warnings %q, want %q", c.app, warnings, c.warning)
		}
	}
}
