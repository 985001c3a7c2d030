//go:build integration

package metrics

import (
	"encoding/json"
	"path/filepath"
	"testing"
	"time"

	"github.com/unitgen/unitgen/test/apps"
	"github.com/unitgen/unitgen/test/rig"
)

// Debian's Prometheus scrapes an app, and the alert rules of the packages pass its promtool and are
// raised by what happens.
func TestPrometheus(t *testing.T) {
	rig.Long(t, "it is in the root file system of many servers")
	rig.NewestSuite(t, func(t *testing.T, suite string) {
		rig.Charge(t)
		s := boot(t, rig.Servers(suite))
		root, err := rig.RepoRoot()
		if err != nil {
			t.Fatal(err)
		}
		const dir = "/etc/prometheus/"
		s.MustCopyIn(t, filepath.Join(root, "packaging/prometheus/unitgen.rules.yml"), dir+"unitgen.rules.yml", 0o644)
		s.MustCopyIn(t, "testdata/rules.test.yml", dir+"rules.test.yml", 0o644)
		t.Log(s.MustExec(t, "promtool", "check", "rules", dir+"unitgen.rules.yml"))
		t.Log(s.MustExec(t, "promtool", "test", "rules", dir+"rules.test.yml"))
		a := apps.New(t, s, "web", "--now")
		a.AwaitUp(a.N)
		t.Log(s.MustExec(t, "sh", "-c", "curl -sS --fail "+url+" | promtool check metrics"))

		s.MustWriteFile(t, dir+"prometheus.yml", `
global: {scrape_interval: 1s, evaluation_interval: 1s}
rule_files: [unitgen.rules.yml]
scrape_configs:
  - job_name: unitgen
    static_configs: [{targets: ['`+address+`']}]
`, 0o644)
		s.MustExec(t, "systemctl", "start", "prometheus")
		// The instance's number has a label of its own beside the address that is scraped.
		awaitQuery(t, s, `unitgen_instance_up{app="web",app_instance="3",instance="`+address+`",job="unitgen"} == 1`)
		awaitQuery(t, s, `unitgen_instances{state="up"} == 3`)
		// The alert that comes soonest: a rollout that failed.
		undo := a.DropIn("web@.service", "[Service]\nExecStart=\nExecStart=/bin/false\n")
		if out, err := s.Exec(t.Context(), "systemctl", "reload", "web"); err != nil || out.Status == 0 {
			t.Errorf("a reload with a broken program: %v, %v", out, err)
		}
		undo()
		awaitQuery(t, s, `ALERTS{alertname="UnitgenRolloutFailed",app="web",alertstate="firing",result="failure"}`)
		if got := query(t, s, `ALERTS{alertname!="UnitgenRolloutFailed",alertstate="firing"}`); got != 0 {
			t.Errorf("%d other alerts", got)
		}
	})
}

// query is how many series Prometheus has for an expression; none while it does not answer.
func query(t *testing.T, s *apps.System, expression string) int {
	t.Helper()
	out, err := s.Exec(t.Context(), "curl", "-sS", "--data-urlencode", "query="+expression, "http://127.0.0.1:9090/api/v1/query")
	if err != nil {
		t.Fatal(err)
	}
	var answer struct {
		Status string
		Data   struct{ Result []json.RawMessage }
	}
	if json.Unmarshal([]byte(out.Stdout), &answer) != nil || answer.Status != "success" {
		return 0
	}
	return len(answer.Data.Result)
}

func awaitQuery(t *testing.T, s *apps.System, expression string) {
	t.Helper()
	tick := time.NewTicker(500 * time.Millisecond)
	defer tick.Stop()
	for end := time.Now().Add(apps.Limit); time.Now().Before(end); <-tick.C {
		if query(t, s, expression) > 0 {
			return
		}
	}
	t.Fatalf("Prometheus has no %s", expression)
}
