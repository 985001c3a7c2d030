package view

import (
	"strings"
	"testing"
	"time"

	"github.com/unitgen/unitgen/internal/control"
	"github.com/unitgen/unitgen/internal/rollout/tally"
	"github.com/unitgen/unitgen/internal/survey"
)

// look is one at app web: instance 1 runs since ten seconds, 2 was restarted and is down.
func look() *survey.Look {
	now := time.Unix(1000, 0)
	one := survey.Instance{Number: 1, State: "up", PID: 7, Started: now.Add(-10 * time.Second), Open: 3, Queued: 1, Steered: 100,
		Usage: survey.Usage{CPU: 5, HasCPU: true, Memory: 3 << 20, HasMemory: true}}
	two := survey.Instance{Number: 2, State: "down", Open: -1, Restarts: 4}
	return &survey.Look{At: now, Apps: []survey.App{{Name: "web", State: "reloading", Wanted: 2, Answered: true, Opened: now.Add(-20 * time.Second),
		Status:    control.Status{Path: "steer", Reason: "eBPF", Strategy: "round-robin"},
		Instances: []survey.Instance{one, two}, Line: "rollout: web@2 starts; 1/2 instances up", Rollouts: tally.Tally{Running: now.Add(-15 * time.Second).UnixMicro()}}}}
}

func TestList(t *testing.T) {
	l := look()
	apps := []*App{{App: "web", Instances: 2, Listen: []string{"80", "[::1]:81"}, Path: "steer"},
		{App: "idle", Instances: 1, Listen: []string{"82"}, Path: "handoff"}, {App: "bad", State: "unreadable"}}
	for _, a := range apps {
		a.Fill(l, nil)
	}
	var b strings.Builder
	if err := PrintApps(&b, apps, Style{Legend: true}); err != nil {
		t.Fatal(err)
	}
	want := `APP  STATE      INSTANCES CPU MEMORY CONNS CONNS/S RESTARTS UPTIME LISTEN      PATH    ROLLOUT
web  reloading        1/2 50%     3M     3     5.0        4    20s 80,[::1]:81 steer   web@2 starts for 15s
idle inactive         0/1                                 0        82          handoff
bad  unreadable       0/0                                 0
`
	if b.String() != want {
		t.Errorf("got\n%s\nwant\n%s", b.String(), want)
	}
}

func TestStatus(t *testing.T) {
	l := look()
	seen, since, drained := l.App("web"), l.At.Add(-time.Hour), l.At.Add(-time.Minute)
	s := &Status{App: "web", State: "reloading", Since: &since, Drained: &drained, Listen: []string{"80"}, Path: "steer", Strategy: "source-hash",
		Rollout: RolloutOf(*seen, l.At), Status: seen.Line, Shim: &seen.Status}
	for _, in := range seen.Instances {
		i := s.Add(seen, in, l, nil)
		i.Reason, i.Hint = "it has no port", "unitgen doctor web"
	}
	var b strings.Builder
	if err := s.Print(&b, Style{Legend: true, Colour: true}, l.At); err != nil {
		t.Fatal(err)
	}
	want := "web: \x1b[0;33mreloading\x1b[0m since 1h, 1/2 instances up\n" +
		`Listen: 80   Path: steer (eBPF)   Strategy: round-robin (settings: source-hash)
Drained: since 1min (unitgen undrain web)
Rollout: web@2 starts for 15s
Status: rollout: web@2 starts; 1/2 instances up

INSTANCE STATE CODE PID CPU MEMORY CONNS CONNS/S RESTARTS UPTIME QUEUED TOTAL
` + "web@1    \x1b[0;32mup\x1b[0m    new    7 50%     3M     3     5.0        0    10s      1   100\n" +
		"web@2    \x1b[0;1;31mdown\x1b[0m                                  0        4                   0\n" +
		"\nweb@1: it has no port\nHint: unitgen doctor web\n"
	if b.String() != want {
		t.Errorf("got\n%s\nwant\n%s", b.String(), want)
	}
	b.Reset()
	if err := s.Print(&b, Style{}, l.At); err != nil || strings.Count(b.String(), "\n") != 2 {
		t.Errorf("without a legend: %q, %v", b.String(), err)
	}
}

func TestSort(t *testing.T) {
	cpu := func(x float64) Figures { return Figures{CPUPercent: &x, uptime: time.Duration(10 - x)} }
	for key, want := range map[string]string{"name": "abc", "cpu": "cba", "state": "bca", "uptime": "bca", "memory": "abc"} {
		rows := []*App{{App: "a", State: "idle"}, {App: "b", State: "active", Figures: cpu(1)}, {App: "c", State: "active", Figures: cpu(5)}}
		Sort(rows, key)
		var got strings.Builder
		for _, a := range rows {
			got.WriteString(string(a.App))
		}
		if got.String() != want {
			t.Errorf("by %s: %s, want %s", key, got.String(), want)
		}
	}
}
