//go:build integration

package integration

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/unitgen/unitgen/test/rig"
)

// TestSystemd runs the tests of packages that want a systemd of their own: they reload it, make it
// execute itself and restart the bus. What it says on D-Bus differs from one version to the other.
func TestSystemd(t *testing.T) {
	root, err := rig.RepoRoot()
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	programs := []string{"systemd.test", "sdlog.test"}
	cmd := exec.CommandContext(t.Context(), "go", "test", "-c", "-tags", "integration", "-o", dir, "./internal/systemd", "./internal/sdlog")
	cmd.Dir, cmd.Env = root, append(os.Environ(), "CGO_ENABLED=0")
	out, err := cmd.CombinedOutput()
	rig.Spend(cmd.ProcessState)
	if err != nil {
		t.Fatalf("%q: %v\n%s", cmd.Args, err, out)
	}
	rig.EachSuite(t, func(t *testing.T, suite string) {
		c := rig.Boot(t, suite, rig.Options{Units: []string{"ug-*"}})
		for _, program := range programs {
			c.MustCopyIn(t, filepath.Join(dir, program), "/run/"+program, 0o755)
			if said := c.MustExec(t, "/run/"+program, "-test.run=^TestReal", "-test.v"); said == "testing: warning: no tests to run\nPASS\n" {
				t.Errorf("%s: %s", program, said)
			}
		}
	})
}
