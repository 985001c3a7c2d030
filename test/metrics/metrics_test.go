//go:build integration

// Package metrics scrapes apps of which every count is known, as Prometheus does, under a real PID
// 1.
package metrics

import (
	"fmt"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"

	"github.com/unitgen/unitgen/test/apps"
	"github.com/unitgen/unitgen/test/rig"
)

const (
	address = "127.0.0.1:10864"
	url     = "http://" + address + "/metrics"
)

// boot is apps.Boot with what answers scrapes, as its package installs it, and enabled.
func boot(t *testing.T, suite string) *apps.System {
	t.Helper()
	s := apps.Boot(t, suite)
	root, err := rig.RepoRoot()
	if err != nil {
		t.Fatal(err)
	}
	s.MustCopyIn(t, rig.Bin(t, "unitgen-metrics"), "/usr/lib/unitgen/metrics", 0o755)
	for _, name := range []string{"unitgen-metrics.socket", "unitgen-metrics.service", "unitgen-status.socket", "unitgen-status.service"} {
		s.MustCopyIn(t, filepath.Join(root, "packaging/systemd", name), "/usr/lib/systemd/system/"+name, 0o644)
	}
	s.MustExec(t, "systemctl", "daemon-reload")
	s.MustExec(t, "systemctl", "enable", "--now", "unitgen-metrics.socket")
	return s
}

// values are those of one scrape, by name and labels as they are written.
type values map[string]float64

// read takes the text format apart.
func read(t *testing.T, text string) values {
	t.Helper()
	parser := expfmt.NewTextParser(model.UTF8Validation)
	families, err := parser.TextToMetricFamilies(strings.NewReader(text))
	if err != nil {
		t.Fatalf("%v in:\n%s", err, text)
	}
	all := make(values)
	for name, family := range families {
		for _, m := range family.Metric {
			var labels []string
			for _, l := range m.Label {
				labels = append(labels, fmt.Sprintf("%s=%q", l.GetName(), l.GetValue()))
			}
			key := "{" + strings.Join(labels, ",") + "}"
			switch {
			case m.Counter != nil:
				all[name+key] = m.Counter.GetValue()
			case m.Gauge != nil:
				all[name+key] = m.Gauge.GetValue()
			case m.Summary != nil:
				all[name+"_count"+key], all[name+"_sum"+key] = float64(m.Summary.GetSampleCount()), m.Summary.GetSampleSum()
			}
		}
	}
	return all
}

// scrape asks for the metrics of the host, ask for those at an address that curl takes.
func scrape(t *testing.T, s *apps.System, what string, ok func(values) bool) values {
	t.Helper()
	return ask(t, s, []string{url}, what, ok)
}

// ask asks by curl in the container. What was gathered is given out again for a second, so it asks
// until ok says that the values are those of now.
func ask(t *testing.T, s *apps.System, at []string, what string, ok func(values) bool) values {
	t.Helper()
	tick := time.NewTicker(200 * time.Millisecond)
	defer tick.Stop()
	var v values
	for end := time.Now().Add(apps.Limit); time.Now().Before(end); <-tick.C {
		v = read(t, s.MustExec(t, append([]string{"curl", "-sS", "--fail-with-body"}, at...)...))
		if ok(v) {
			return v
		}
	}
	t.Fatalf("no %s in %v", what, v)
	return nil
}

// sum is that of all values of a name.
func (v values) sum(name string) (sum float64) {
	for key, value := range v {
		if strings.HasPrefix(key, name+"{") {
			sum += value
		}
	}
	return sum
}

// expect compares values with those that are known.
func (v values) expect(t *testing.T, want values) {
	t.Helper()
	for name, value := range want {
		if got, ok := v[name]; !ok || got != value {
			t.Errorf("%s is %v (there: %v), want %v", name, got, ok, value)
		}
	}
}

func TestMetrics(t *testing.T) {
	rig.NewestSuite(t, func(t *testing.T, suite string) {
		rig.Charge(t)
		s := boot(t, suite)
		a := apps.New(t, s, "web", "--now")
		a.AwaitUp(a.N)
		const each = 20
		a.Lossless(a.Load(rig.LoadOptions{Requests: 3 * each, Clients: 1}).Wait())
		held := a.Hold(3)
		v := scrape(t, s, "count of all connections", func(v values) bool {
			return v.sum("unitgen_connections_given_total") == each*3+3 && v.sum("unitgen_connections_open") == 3
		})
		for i := 1; i <= a.N; i++ { // round robin
			v.expect(t, values{
				fmt.Sprintf(`unitgen_connections_given_total{app="web",app_instance="%d"}`, i): each + 1,
				fmt.Sprintf(`unitgen_connections_open{app="web",app_instance="%d"}`, i):        1,
			})
		}
		v.expect(t, values{
			`unitgen_app_state{app="web",state="active"}`: 1, `unitgen_app_state{app="web",state="idle"}`: 0,
			`unitgen_app_info{app="web",path="steer",strategy="round-robin"}`: 1,
			`unitgen_balancer_up{app="web"}`:                                  1, `unitgen_instances_wanted{app="web"}`: 3,
			`unitgen_instances{app="web",state="up"}`: 3, `unitgen_instances{app="web",state="down"}`: 0,
			`unitgen_instance_up{app="web",app_instance="1"}`: 1, `unitgen_instance_restarts_total{app="web",app_instance="2"}`: 0,
			`unitgen_rollout_duration_seconds_count{app="web",result="success"}`: 0, `unitgen_rollout_running{app="web"}`: 0,
			`unitgen_tampering_total{app="web"}`: 0,
		})
		positive := []string{`unitgen_instance_cpu_seconds_total{app="web",app_instance="1"}`, `unitgen_balancer_cpu_seconds_total{app="web"}`}
		if out, err := s.Exec(t.Context(), "test", "-e", "/sys/fs/cgroup/system.slice/web.service/memory.current"); err == nil && out.Status == 0 {
			positive = append(positive, `unitgen_instance_memory_bytes{app="web",app_instance="1"}`, `unitgen_balancer_memory_bytes{app="web"}`)
		}
		for _, name := range positive {
			if v[name] <= 0 {
				t.Errorf("%s is %v", name, v[name])
			}
		}
		for _, h := range held {
			h.Close()
		}

		// One instance is killed once, and a rollout succeeds, another one fails: the counts say
		// so.
		pid := a.PID(a.Instance(2))
		a.Signal(a.Instance(2), "KILL")
		a.AwaitNew(a.Instance(2), pid)
		a.AwaitUp(a.N)
		scrape(t, s, "restart", func(v values) bool { return v[`unitgen_instance_restarts_total{app="web",app_instance="2"}`] == 1 })
		a.Reload()
		undo := a.DropIn("web@.service", "[Service]\nExecStart=\nExecStart=/bin/false\n")
		if out, err := s.Exec(t.Context(), "systemctl", "reload", "web"); err != nil || out.Status == 0 {
			t.Errorf("a reload with a broken program: %v, %v", out, err)
		}
		undo()
		v = scrape(t, s, "rollouts", func(v values) bool {
			return v[`unitgen_rollout_duration_seconds_count{app="web",result="failure"}`] == 1
		})
		v.expect(t, values{
			`unitgen_rollout_duration_seconds_count{app="web",result="success"}`: 1, `unitgen_rollout_duration_seconds_count{app="web",result="killed"}`: 0,
			`unitgen_instances{app="web",state="up"}`: 3, `unitgen_rollout_running{app="web"}`: 0,
		})
		if v[`unitgen_rollout_duration_seconds_sum{app="web",result="success"}`] <= 0 || v[`unitgen_rollout_last_end_time_seconds{app="web"}`] <= 0 {
			t.Errorf("durations are missing: %v", v)
		}

		t.Run("OneApp", func(t *testing.T) { oneApp(t, s) })
		t.Run("Strangers", func(t *testing.T) { strangers(t, s) })
	})
}

// An app with --metrics= has an address for itself alone, here a path. It is open while the app
// runs or is idle, and closed with it.
func oneApp(t *testing.T, s *apps.System) {
	a := apps.New(t, s, "api", "--now", "--idle-exit=1s", "--metrics=/run/api.metrics")
	at := []string{"--unix-socket", "/run/api.metrics", "http://localhost/metrics"}
	v := ask(t, s, at, "app", func(v values) bool { return len(v) > 0 })
	for name := range v {
		if strings.Contains(name, `app="web"`) {
			t.Errorf("%s is of another app", name)
		}
	}
	s.MustWait(t, apps.Limit, a.Shim(), func(p rig.Properties) bool { return p["ActiveState"] == "inactive" })
	// A scrape does not start an app that is idle. It starts its own process if that is gone.
	ask(t, s, at, "idle app", func(v values) bool { return v[`unitgen_app_state{app="api",state="idle"}`] == 1 })
	s.MustExec(t, "systemctl", "stop", "unitgen-metrics.service", "unitgen-status.service")
	for range 2 {
		v := scrape(t, s, "idle app", func(v values) bool { return v[`unitgen_app_state{app="api",state="idle"}`] == 1 })
		v.expect(t, values{`unitgen_balancer_up{app="api"}`: 0, `unitgen_balancer_up{app="web"}`: 1, `unitgen_instances_wanted{app="api"}`: 3})
		if _, there := v[`unitgen_connections_given_total{app="api",app_instance="1"}`]; there {
			t.Error("an app that is idle has counts of connections")
		}
	}
	a.MustSystemctl("stop", "api.socket", "api.service")
	s.MustWait(t, apps.Limit, "api-metrics.socket", func(p rig.Properties) bool { return p["ActiveState"] == "inactive" })
	a.MustSystemctl("start", "api")
	awake := a.Hold(1)[0]
	ask(t, s, at, "app that runs", func(v values) bool {
		return v[`unitgen_app_state{app="api",state="active"}`] == 1 && v[`unitgen_balancer_up{app="api"}`] == 1
	})
	awake.Close()
	a.MustSystemctl("stop", "api")
	s.MustWait(t, apps.Limit, "api-metrics.socket", func(p rig.Properties) bool { return p["ActiveState"] == "inactive" })
}

// Nobody but the user of the metrics may speak with the relay, and it speaks with PID 1 as little
// as with the bus.
func strangers(t *testing.T, s *apps.System) {
	const ask = `import socket; s = socket.socket(socket.AF_UNIX); s.connect("/run/unitgen/status")`
	if out, err := s.Exec(t.Context(), "setpriv", "--reuid=nobody", "--clear-groups", "python3", "-c", ask); err != nil || out.Status == 0 {
		t.Errorf("nobody spoke with the relay: %v, %v", out, err)
	}
	if user := s.MustExec(t, "sh", "-c", "ps -o user:20= -C metrics"); strings.TrimSpace(user) != "unitgen-metrics" {
		t.Errorf("scrapes are answered by %q", user)
	}
	for _, path := range []string{"/run/dbus", "/run/systemd/private"} {
		pid := s.MustShow(t, "unitgen-status.service", "MainPID")
		mode := s.MustExec(t, "stat", "-c", "%a", "/proc/"+pid+"/root"+path)
		if strings.TrimSpace(mode) != "0" {
			t.Errorf("the relay sees %s with mode %s", path, mode)
		}
	}
}
