//go:build integration

package generator

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/unitgen/unitgen/test/rig"
)

// testDocs runs the commands of the pages for admins, the lines that begin with "    # ", in their
// order. Each must succeed.
func testDocs(t *testing.T, s *system) {
	root, err := rig.RepoRoot()
	if err != nil {
		t.Fatal(err)
	}
	for _, page := range []string{"docs/operations.md", "docs/hardening.md"} {
		t.Run(strings.TrimSuffix(filepath.Base(page), ".md"), func(t *testing.T) {
			s.removeLater(t, "web")
			text, err := os.ReadFile(filepath.Join(root, page))
			if err != nil {
				t.Fatal(err)
			}
			n := 0
			for line := range strings.Lines(string(text)) {
				if command, ok := strings.CutPrefix(line, "    # "); ok {
					s.documented(t, strings.TrimSpace(command))
					n++
				}
			}
			if n < 5 {
				t.Errorf("%s has %d commands", page, n)
			}
		})
	}
}

// documented runs a command of a page. doctor has to find nothing before long: the page kills the
// balancer before.
func (s *system) documented(t *testing.T, command string) {
	t.Helper()
	out := s.run(t, "sh", "-c", command)
	for end := time.Now().Add(limit); out.Status != 0 && strings.HasPrefix(command, "unitgen doctor") && time.Now().Before(end); {
		out = s.run(t, "sh", "-c", command)
	}
	if out.Status != 0 {
		t.Fatalf("%s: exit status %d\n%s%s", command, out.Status, out.Stdout, out.Stderr)
	}
	t.Logf("# %s\n%s%s", command, out.Stdout, out.Stderr)
}
