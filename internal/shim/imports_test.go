package shim

import (
	"os/exec"
	"slices"
	"strings"
	"testing"
)

// The core knows no path: what one path needs must not get in.
func TestCoreImportsNoPath(t *testing.T) {
	out, err := exec.CommandContext(t.Context(), "go", "list", "-deps", ".").Output()
	if err != nil {
		t.Fatalf("list what the core imports: %v", err)
	}
	const module = "github.com/unitgen/unitgen/internal/"
	all := strings.Fields(string(out))
	for _, name := range []string{"steer", "handoff", "sockdiag", "shim/steered", "shim/handed"} {
		if slices.Contains(all, module+name) {
			t.Errorf("the core imports %s", module+name)
		}
	}
	if !slices.Contains(all, module+"shim/path") {
		t.Errorf("the core does not import %s: the names here are old", module+"shim/path")
	}
}
