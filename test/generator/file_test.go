//go:build integration

package generator

import (
	"fmt"
	"strings"
	"testing"
)

// testFile makes an app from a file of three lines, changes it by the file, and has what the
// section of its app.service says make the same app again.
func testFile(t *testing.T, s *system) {
	port := s.newPort()
	s.removeLater(t, "filed")
	s.later(t, "rm", "-rf", "/srv/filed")
	const file = "/srv/filed/filed.unitgen"
	s.MustExec(t, "install", "-D", server, "/srv/filed/server")
	lines := fmt.Sprintf("Command=./server 'two words'\nInstances=2\nListen=%d\n", port)
	s.MustWriteFile(t, file, lines, 0o644)
	s.unitgen(t, "check", file)
	s.unitgen(t, "--file="+file, "--now")
	s.awaitUp(t, "filed", 2)
	s.checkInstances(t, "filed", port, 2)
	pid := strings.TrimSpace(s.MustExec(t, "systemctl", "show", "--value", "-P", "MainPID", "filed@1"))
	if argv := s.MustExec(t, "cat", "/proc/"+pid+"/cmdline"); argv != "/srv/filed/server\x00two words\x00" {
		t.Errorf("PID 1 executes %q", argv)
	}
	s.unitgen(t, "--file="+file, "--check")

	s.MustWriteFile(t, file, lines+"Environment=COLOUR=red 'SIZE=very large'\n", 0o644)
	kept := s.invocations(t, append(appUnits("filed"), unitsOf("filed", 1, 2)...)...)
	s.unitgen(t, "--file="+file)
	if after := s.invocations(t, append(appUnits("filed"), unitsOf("filed", 1, 2)...)...); after != kept {
		t.Errorf("units were started anew:\n%s\nbefore\n%s", after, kept)
	}
	s.MustExec(t, "systemctl", "reload", "filed")
	if env := s.MustExec(t, "systemctl", "show", "--value", "-P", "Environment", "filed@1"); !strings.Contains(env, `COLOUR=red "SIZE=very large"`) {
		t.Errorf("environment %q", env)
	}
	section := s.MustExec(t, "sed", "-n", `/^\[X-Unitgen\]$/,/^$/p`, units+"/filed.service")
	s.MustWriteFile(t, file, section, 0o644)
	s.unitgen(t, "--file="+file, "--check")

	s.MustWriteFile(t, file, lines+"Instance=3\nMemoryMax=1G\n", 0o644)
	s.refused(t, 2, []string{file + `:4: unknown key "Instance"; did you mean Instances=`, file + `:5: unknown key "MemoryMax"; did you mean MaxMemory=`}, "--file="+file)
}
