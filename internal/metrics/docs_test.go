package metrics

import (
	"encoding/json"
	"fmt"
	"os"
	"regexp"
	"strings"
	"testing"
)

// rows are the lines of the table in docs/metrics.md.
func rows() []string {
	line := func(name, kind string, labels []string, help string) string {
		return fmt.Sprintf("| `%s` | %s | `%s` | %s |", name, kind, strings.Join(append([]string{labelApp}, labels...), "`, `"), help)
	}
	var all []string
	for _, f := range families {
		kind := "gauge"
		if f.kind == counter {
			kind = "counter"
		}
		all = append(all, line(f.name, kind, f.labels, f.help))
	}
	return append(all, line(rolloutName, "summary", []string{labelResult}, rolloutHelp))
}

// The page has the table of all metrics, as they are told to Prometheus.
func TestDocs(t *testing.T) {
	page, err := os.ReadFile("../../docs/metrics.md")
	if err != nil {
		t.Fatal(err)
	}
	const header = "| metric | type | labels | what |\n|---|---|---|---|\n"
	_, table, ok := strings.Cut(string(page), header)
	table, _, _ = strings.Cut(table, "\n\n")
	if want := strings.Join(rows(), "\n"); !ok || table != want {
		t.Errorf("docs/metrics.md has another table; it must be:\n%s%s", header, want)
	}
}

// Rules and dashboard use metrics that there are.
func TestRulesAndDashboardUseWhatThereIs(t *testing.T) {
	known := map[string]bool{rolloutName + "_count": true, rolloutName + "_sum": true}
	for _, f := range families {
		known[f.name] = true
	}
	used := make(map[string]bool)
	for _, path := range []string{"../../packaging/prometheus/unitgen.rules.yml", "../../packaging/grafana/unitgen.json"} {
		text, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		names := regexp.MustCompile(`\bunitgen_[a-z_]+`).FindAllString(string(text), -1)
		for _, name := range names {
			used[name] = true
			if !known[name] {
				t.Errorf("%s: there is no metric %s", path, name)
			}
		}
		if len(names) < 5 {
			t.Errorf("%s: uses %q", path, names)
		}
		if strings.HasSuffix(path, ".json") && !json.Valid(text) {
			t.Errorf("%s is no JSON", path)
		}
	}
	if len(used) < 10 {
		t.Errorf("used are %v", used)
	}
}
