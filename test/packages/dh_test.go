//go:build integration

package packages

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/unitgen/unitgen/test/rig"
)

// dhUnitgen runs dh_unitgen in a source package of two binary packages, one and two, that has these
// files in debian/.
func dhUnitgen(t *testing.T, files map[string]string, options ...string) (dir, said string, err error) {
	t.Helper()
	root, rootErr := rig.RepoRoot()
	if rootErr != nil {
		t.Fatal(rootErr)
	}
	dir = t.TempDir()
	if err := os.Mkdir(filepath.Join(dir, "debian"), 0o755); err != nil {
		t.Fatal(err)
	}
	files["control"] = "Source: one\nBuild-Depends: debhelper-compat (= 13)\n\nPackage: one\nArchitecture: all\n\nPackage: two\nArchitecture: all\n"
	files["changelog"] = "one (1) unstable; urgency=medium\n\n  * Test.\n\n -- unitgen developers <unitgen@users.noreply.github.com>  Sat, 21 Nov 2026 12:00:00 +0000\n"
	for name, text := range files {
		if err := os.WriteFile(filepath.Join(dir, "debian", name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	cmd := exec.CommandContext(t.Context(), filepath.Join(root, "packaging/dh/dh_unitgen"), options...)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "DH_AUTOSCRIPTDIR="+filepath.Join(root, "packaging/dh/autoscripts"),
		"PATH="+filepath.Dir(rig.Bin(t, "unitgen"))+":"+os.Getenv("PATH"))
	out, err := cmd.CombinedOutput()
	return dir, string(out), err
}

const oneApp = "Command=/usr/bin/app\nListen=3000\n"

// TestDhUnitgen looks at what goes into packages with several apps.
func TestDhUnitgen(t *testing.T) {
	dir, said, err := dhUnitgen(t, map[string]string{"one.unitgen": oneApp, "two.web.unitgen": oneApp, "two.api.unitgen": oneApp},
		"--systemd-version=257", "--error-handler=give_up", "--no-enable")
	if err != nil {
		t.Fatalf("dh_unitgen: %v\n%s", err, said)
	}
	for _, file := range []string{"one/usr/lib/systemd/system/one.service", "two/usr/lib/systemd/system/web@.service", "two/usr/lib/systemd/system/api.socket"} {
		if _, err := os.Stat(filepath.Join(dir, "debian", file)); err != nil {
			t.Error(err)
		}
	}
	for file, wants := range map[string][]string{
		"two.postinst.debhelper":                    nil, // its snippets run with those of services, not before
		".debhelper/generated/two/postinst.service": {"'web.socket' 'web.service'", "'api.socket' 'api.service'", "give_up", "if ! false; then"},
		".debhelper/generated/two/prerm.service":    {"'web.service' 'web.socket' 'web-control.socket' 'web-diag.socket'"},
		"two.substvars":                             {"lbshim", "systemd (>= 257~)"},
	} {
		text, err := os.ReadFile(filepath.Join(dir, "debian", file))
		if err != nil && wants != nil {
			t.Error(err)
		}
		if err == nil && wants == nil {
			t.Errorf("there is a file %s", file)
		}
		for _, want := range wants {
			if !strings.Contains(string(text), want) {
				t.Errorf("%s has no %q:\n%s", file, want, text)
			}
		}
		if strings.Contains(file, "generated") && strings.Contains(string(text), "#APP#") {
			t.Errorf("%s has a word that was not replaced:\n%s", file, text)
		}
	}
}

// TestDhUnitgenReports: a rollout that fails is no error of the installation, by default; the
// handler that debhelper itself has as its default is.
func TestDhUnitgenReports(t *testing.T) {
	dir, said, err := dhUnitgen(t, map[string]string{"one.unitgen": oneApp})
	if err != nil {
		t.Fatalf("dh_unitgen: %v\n%s", err, said)
	}
	text, err := os.ReadFile(filepath.Join(dir, "debian/.debhelper/generated/one/postinst.service"))
	if err != nil || !strings.Contains(string(text), "\t\t\ttrue\n") || strings.Contains(string(text), "exit") {
		t.Errorf("postinst, %v:\n%s", err, text)
	}
}

// TestDhUnitgenRefuses ends the build for what would otherwise be found on somebody's machine.
func TestDhUnitgenRefuses(t *testing.T) {
	for _, tt := range []struct {
		name, want string
		files      map[string]string
	}{
		{"a file of no package", "hint: mv debian/web.unitgen debian/one.web.unitgen", map[string]string{"web.unitgen": oneApp}},
		{"a bad setting", "one.unitgen:2: ", map[string]string{"one.unitgen": "Command=/usr/bin/app\nListen=http\n"}},
	} {
		if _, said, err := dhUnitgen(t, tt.files); err == nil || !strings.Contains(said, tt.want) {
			t.Errorf("%s: %v, it says %q, want %q", tt.name, err, said, tt.want)
		}
	}
}
