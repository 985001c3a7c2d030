//go:build integration

package generator

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/unitgen/unitgen/test/rig"
)

// testOutput writes a tree for a package, installs it as a package would, and runs it.
func testOutput(t *testing.T, s *system) {
	port := s.newPort()
	s.removeLater(t, "packaged")
	s.later(t, "sh", "-c", "systemctl stop 'packaged.*' 'packaged[@-]*'; rm -rf /usr/lib/systemd/system/packaged*; systemctl daemon-reload")
	disk, reloads := s.tree(t, "/etc", "/usr/lib/systemd"), s.reloads(t)
	s.unitgen(t, "packaged", "--instances=64", listenOption(port), "--output=/srv/packaged/usr/lib/systemd/system", "--", server)
	links := s.MustExec(t, "find", "/srv/packaged", "-type", "l", "-printf", `%P %l\n`)
	if n := strings.Count(links, " ../packaged@.service\n"); n != 64 || strings.Count(links, "\n") != n {
		t.Errorf("links:\n%swant 64", links)
	}
	s.unitgen(t, "scale", "packaged", "3", "--output=/srv/packaged/usr/lib/systemd/system")
	if n := s.reloads(t) - reloads; n != 1 { // that of counting
		t.Errorf("PID 1 was reloaded %d times", n-1)
	}
	if after := s.tree(t, "/etc", "/usr/lib/systemd"); after != disk {
		t.Errorf("--output= elsewhere has written:\n%s\nbefore\n%s", after, disk)
	}
	s.MustExec(t, "cp", "-a", "/srv/packaged/.", "/")
	s.MustExec(t, "systemctl", "daemon-reload")
	s.MustExec(t, "systemctl", "enable", "--now", "packaged")
	s.awaitUp(t, "packaged", 3)
	if text := s.get(t, port); !strings.HasPrefix(text, "instance=") {
		t.Errorf("the app answers %q", text)
	}
	if list := s.listed(t); !slices.Equal(list, []string{fmt.Sprintf("packaged active 3/3 %d steer", port)}) {
		t.Errorf("list = %q", list)
	}
	// The name is the package's now: units of /etc would hide what it updates.
	s.refused(t, 2, []string{`/(usr/)?lib/systemd/system/packaged.*\.(service|socket) exists: the name "packaged" is taken`},
		"packaged", listenOption(s.newPort()), "--", server)
	s.MustExec(t, "systemctl", "disable", "--now", "packaged")
}

// testAtOnce runs several unitgens at the same time on one app: each does its work after the other.
func testAtOnce(t *testing.T, s *system) {
	port := s.newPort()
	s.removeLater(t, "shared")
	var create, grow [][]string
	for i := range 4 {
		create = append(create, []string{"unitgen", "shared", "--instances=2", listenOption(port), fmt.Sprintf("--env=RUN=%d", i), "--", server})
		grow = append(grow, []string{"unitgen", "scale", "shared", "+1"})
	}
	s.together(t, create...)
	s.checkConsistent(t, "shared")
	s.unitgen(t, "shared", "--now")
	s.awaitUp(t, "shared", 2)
	// Another app beside it: the runs of both wait for each other too.
	s.removeLater(t, "beside")
	grow = append(grow, []string{"unitgen", "beside", "--now", listenOption(s.newPort()), "--", server})
	s.together(t, grow...)
	s.awaitUp(t, "shared", 6)
	s.awaitUp(t, "beside", 1)
	s.checkConsistent(t, "shared")
	s.checkConsistent(t, "beside")
	s.checkInstances(t, "shared", port, 6)
}

// together runs commands at the same time; all must succeed.
func (s *system) together(t *testing.T, commands ...[]string) {
	t.Helper()
	failed := make(chan error, len(commands))
	for _, argv := range commands {
		go func() {
			out, err := s.Exec(t.Context(), argv...)
			if err == nil && out.Status != 0 {
				err = fmt.Errorf("%q = %d: %s", argv, out.Status, out.Stderr)
			}
			failed <- err
		}()
	}
	for range commands {
		if err := <-failed; err != nil {
			t.Error(err)
		}
	}
}

// checkConsistent checks that the disk is what the app's settings say, and that nothing temporary
// is left.
func (s *system) checkConsistent(t *testing.T, name string) {
	t.Helper()
	if out := s.run(t, "unitgen", name, "--check"); out.Status != 0 {
		t.Errorf("unitgen %s --check = %d: %s", name, out.Status, out.Stderr)
	}
	if left := s.leftovers(t); left != "" {
		t.Errorf("temporary files are left:\n%s", left)
	}
}

func (s *system) leftovers(t *testing.T) string {
	t.Helper()
	return s.MustExec(t, "find", units, "-name", ".unitgen-*")
}

// testKilled kills unitgen at the first system call of each kind that changes a directory, as kill
// -9 would: the kernel does it, in the middle of the write. The next run completes what was asked
// for.
func testKilled(t *testing.T, s *system) {
	tests := []struct {
		name  string
		calls string   // the first of these kills
		setup []string // options of the app before; nil: there is none
		args  []string
		want  int // instances
	}{
		{"killed-staging", "fsync fdatasync", nil, nil, 2},
		{"killed-linking", "symlink symlinkat", nil, nil, 2},
		{"killed-swapping", "rename renameat renameat2", nil, nil, 2},
		{"killed-replacing", "rename renameat renameat2", []string{"--instances=4"}, []string{"--env=A=2", "--instances=2"}, 2},
		{"killed-half", "unlink unlinkat rmdir", []string{"--instances=4"}, []string{"--env=A=2", "--instances=2"}, 2},
		{"killed-cleaning", "unlink unlinkat rmdir", []string{"--instances=2"}, []string{"--env=A=2", "--instances=4"}, 4},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			s.removeLater(t, tt.name)
			port := s.newPort()
			if tt.setup != nil {
				s.unitgen(t, append(append([]string{tt.name, listenOption(port), "--env=A=1"}, tt.setup...), "--", server)...)
			} else {
				tt.args = []string{listenOption(port), "--env=A=2", "--instances=2", "--", server}
			}
			args := append([]string{"unitgen", tt.name}, tt.args...)
			out := s.run(t, append([]string{"systemd-run", "--wait", "--pipe", "--collect", "-pSystemCallFilter=~" + tt.calls, "--"}, args...)...)
			if !strings.Contains(out.Stderr, "status=SYS") && !strings.Contains(out.Stderr, "status=31/SYS") {
				t.Errorf("%q was not killed: %+v", args, out)
			}
			if s.leftovers(t) == "" {
				t.Error("nothing was being written when it was killed")
			}
			s.unitgen(t, args[1:]...)
			s.checkConsistent(t, tt.name)
			if links := s.MustExec(t, "ls", units+"/"+tt.name+".service.wants"); strings.Count(links, "\n") != tt.want {
				t.Errorf("instances = %q, want %d", links, tt.want)
			}
			s.MustExec(t, "grep", "-qx", "Environment=A=2", units+"/"+tt.name+"@.service")
			if tt.name == "killed-linking" || tt.name == "killed-half" || rig.All() { // one new, one changed: the same files are the same app
				s.unitgen(t, tt.name, "--now")
				s.awaitUp(t, tt.name, tt.want)
			}
		})
	}
}

// testKilledMoving kills a run that has stopped a live app to change its listeners: the same
// command again brings it back.
func testKilledMoving(t *testing.T, s *system) {
	port, other := s.newPort(), s.newPort()
	s.removeLater(t, "moving")
	s.unitgen(t, "moving", "--now", listenOption(port), "--", server)
	s.awaitUp(t, "moving", 1)
	out := s.run(t, "systemd-run", "--wait", "--pipe", "--collect", "-pSystemCallFilter=~rename renameat renameat2", "--", "unitgen", "moving", listenOption(other))
	if !strings.Contains(out.Stderr, "SYS") || !strings.Contains(out.Stderr, "Stopping moving") {
		t.Errorf("it was not killed after it had stopped the app: %+v", out)
	}
	s.unitgen(t, "moving", listenOption(other))
	s.awaitUp(t, "moving", 1)
	if text := s.get(t, other); !strings.HasPrefix(text, "instance=") {
		t.Errorf("the app answers %q", text)
	}
	if notes := s.MustExec(t, "find", "/run", "-maxdepth", "1", "-name", "unitgen-stopped-*"); notes != "" {
		t.Errorf("left behind: %s", notes)
	}
}
