//go:build integration

package node

import (
	"strconv"
	"strings"
	"testing"
)

// Under Node's permission model the program is served and drained as without, though it may read
// nothing but itself; and what it prints bears its own name, not that of the program which started
// it.
func testPermission(t *testing.T, s *system, node string) {
	a := newApp(t, s, node, "permission")
	a.start("--", node, "--experimental-permission", "--allow-fs-read=/srv/plain.js", "plain.js", strconv.Itoa(a.port))
	slow := a.slow("keep-alive")
	s.MustExec(t, "systemctl", "restart", a.name+"@*.service")
	if status, err := slow.answer(); err != nil || status != 200 {
		t.Errorf("a request in flight was answered with %d, %v", status, err)
	}
	lines := s.MustExec(t, "journalctl", "--no-pager", "--quiet", "--output=cat", "--identifier=node", "--unit="+a.instance(1))
	if !strings.Contains(lines, "Permission") { // Node warns of the feature
		all := s.MustExec(t, "journalctl", "--no-pager", "--quiet", "--output=short", "--unit="+a.instance(1))
		t.Errorf("lines of node are %q of\n%s", lines, all)
	}
}
