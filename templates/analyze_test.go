package templates_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/unitgen/unitgen/internal/needs"
	"github.com/unitgen/unitgen/templates"
)

// verify writes the units into a directory of their own, with stand-ins for the programs that they
// execute, which the checker looks for, and returns what systemd-analyze says of them.
func verify(t *testing.T, user string, files []templates.File) (output string, err error) {
	t.Helper()
	dir := t.TempDir()
	bin := filepath.Join(dir, "bin")
	programs := strings.NewReplacer("/usr/lib/unitgen/", bin+"/", "/opt/app/", bin+"/", "/usr/sbin/", bin+"/")
	if err := os.Mkdir(bin, 0o755); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"lbshim", "metrics", "server", "node", "nginx"} {
		if err := os.WriteFile(filepath.Join(bin, name), nil, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	args := []string{user, "verify", "--recursive-errors=no", "--man=no"}
	for _, f := range files {
		path := filepath.Join(dir, f.Name)
		if err := os.WriteFile(path, []byte(programs.Replace(f.Text)), 0o644); err != nil {
			t.Fatal(err)
		}
		args = append(args, path)
	}
	cmd := exec.Command("systemd-analyze", args...)
	cmd.Env = append(os.Environ(), "SYSTEMD_UNIT_PATH="+dir+":", "XDG_RUNTIME_DIR="+dir)
	out, err := cmd.CombinedOutput()
	return string(out), err
}

// newer matches what an older systemd-analyze says of settings that it does not know yet.
var newer = regexp.MustCompile(`(?m)^.*Unknown key( name)? 'PollLimitIntervalSec' in section .*\n`)

func TestVerify(t *testing.T) {
	needs.Program(t, "systemd-analyze", "systemd")
	for _, g := range goldens() {
		t.Run(g.name, func(t *testing.T) {
			user := "--system"
			if g.app.UserUnits {
				user = "--user"
			}
			output, err := verify(t, user, render(t, g.app))
			// An unknown setting alone gives an exit status of 1 too.
			if rest := newer.ReplaceAllString(output, ""); rest != "" || err != nil && output == "" {
				t.Errorf("systemd-analyze verify: %v\n%s", err, output)
			}
		})
	}
}

// A checker that lets everything pass would prove nothing.
func TestVerifyRejects(t *testing.T) {
	needs.Program(t, "systemd-analyze", "systemd")
	for _, c := range []struct{ unit, good, bad string }{
		{"app@.service", "ExecStart=/opt/app/server", "ExecStart=/opt/app/missing"},
		{"app@.service", "ExecStart=/opt/app/server", `ExecStart="/opt/app/server`},
		{"app.socket", "ListenStream=3000", "ListenStream=70000"},
		{"app.service", "Type=notify", "Type=nonsense"},
	} {
		files := render(t, goldens()[0].app)
		for i, f := range files {
			if f.Name == c.unit {
				files[i].Text = strings.Replace(f.Text, c.good, c.bad, 1)
			}
		}
		output, err := verify(t, "--system", files)
		if err == nil && newer.ReplaceAllString(output, "") == "" {
			t.Errorf("%s with %q was let pass", c.unit, c.bad)
		}
	}
}

// Exposure as "systemd-analyze security" counts it, in tenths.
func TestSecurity(t *testing.T) {
	needs.Program(t, "systemd-analyze", "systemd")
	threshold := map[string]map[string]string{
		"minimal":         {"app.service": "15", "app@.service": "15", "app-join.service": "15", "app-join@.service": "15"},
		"v252":            {"app.service": "15", "app@.service": "15", "app-join.service": "15", "app-join@.service": "15"},
		"node":            {"app.service": "15", "app@.service": "15"},
		"everything":      {"web-shop.service": "15", "web-shop@.service": "15"},
		"private-network": {"app.service": "15", "app@.service": "5"},
		"agent":           {"app-agent.service": "20"},
		"metrics":         {"app-metrics.service": "10"},
		"restart":         {"app@.service": "15", "app-memory.service": "20", "app-reload.service": "20"},
	}
	for _, g := range goldens() {
		dir := t.TempDir()
		for _, f := range render(t, g.app) {
			limit, ok := threshold[g.name][f.Name]
			if !ok {
				continue
			}
			path := filepath.Join(dir, f.Name)
			if err := os.WriteFile(path, []byte(f.Text), 0o644); err != nil {
				t.Fatal(err)
			}
			out, err := exec.Command("systemd-analyze", "security", "--no-pager", "--offline=true", "--threshold="+limit, path).CombinedOutput()
			lines := strings.Split(strings.TrimSpace(string(out)), "\n")
			t.Logf("%s: %s", g.name, lines[len(lines)-1])
			if err != nil {
				t.Errorf("%s: %s is above %s: %v\n%s", g.name, f.Name, limit, err, out)
			}
		}
	}
}

// The units of packages are held to the same.
func TestPackagedUnits(t *testing.T) {
	needs.Program(t, "systemd-analyze", "systemd")
	paths, err := filepath.Glob("../packaging/systemd/*")
	if err != nil || len(paths) < 4 {
		t.Fatal(paths, err)
	}
	var files []templates.File
	for _, path := range paths {
		text, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		files = append(files, templates.File{Name: filepath.Base(path), Text: string(text)})
	}
	if output, err := verify(t, "--system", files); err != nil || output != "" {
		t.Errorf("systemd-analyze verify: %v\n%s", err, output)
	}
	for name, limit := range map[string]string{"unitgen-metrics.service": "10", "unitgen-status.service": "20"} {
		out, err := exec.Command("systemd-analyze", "security", "--no-pager", "--offline=true", "--threshold="+limit, "../packaging/systemd/"+name).CombinedOutput()
		lines := strings.Split(strings.TrimSpace(string(out)), "\n")
		t.Logf("%s: %s", name, lines[len(lines)-1])
		if err != nil {
			t.Errorf("%s is above %s: %v\n%s", name, limit, err, out)
		}
	}
}
