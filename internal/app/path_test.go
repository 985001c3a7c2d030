package app

import (
	"strings"
	"testing"

	"github.com/unitgen/unitgen/internal/balance"
)

func TestDataPath(t *testing.T) {
	unix := []Listen{{Port: 3000}, {Unix: "/run/x"}}
	for _, c := range []struct {
		app      App
		path     Path
		strategy balance.Strategy
		warning  string // part of it; empty for none
	}{
		{App{}, PathSteer, balance.RoundRobin, ""},
		{App{Path: PathAuto, Strategy: balance.First}, PathSteer, balance.First, ""},
		{App{Path: PathHandoff}, PathHandoff, balance.LeastConnections, ""},
		{App{Path: PathHandoff, Strategy: balance.RoundRobin}, PathHandoff, balance.RoundRobin, ""},
		{App{Kind: KindHandoff}, PathHandoff, balance.LeastConnections, ""},
		{App{Listen: unix}, PathHandoff, balance.LeastConnections, "--listen=/run/x takes the handoff path"},
		{App{Strategy: balance.SourceHash}, PathSteer, balance.SourceHash, ""},
		{App{Strategy: balance.RandomTwo, Kind: KindNode}, PathSteer, balance.RandomTwo, ""},
		{App{Strategy: balance.SourceHash, Kind: KindNode, UserUnits: true}, PathHandoff, balance.SourceHash, ""},
		{App{Strategy: balance.LeastConnections, Kind: KindNode, UserUnits: true}, PathHandoff, balance.LeastConnections, ""},
		{App{Strategy: balance.First, Kind: KindNode, UserUnits: true}, PathSteer, balance.First, ""},
		{App{Kind: KindHandoff, Strategy: balance.RandomTwo}, PathHandoff, balance.RandomTwo, ""},
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
