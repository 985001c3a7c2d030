package cgroup

import (
	"bytes"
	"github.com/unitgen/unitgen/internal/needs"
	"os"
	"path/filepath"
	"strconv"
	"testing"
)

// The directory of the group that this process is in lists it.
func TestOwnDirectory(t *testing.T) {
	group, err := Own()
	if err != nil {
		needs.Missing(t, "%v", err)
	}
	text, err := os.ReadFile(filepath.Join(Dir(group), "cgroup.procs"))
	if err != nil || !bytes.Contains(append([]byte("\n"), text...), []byte("\n"+strconv.Itoa(os.Getpid())+"\n")) {
		t.Errorf("%s lists %q, %v, and not this process, %d", Dir(group), text, err, os.Getpid())
	}
}

func TestNoGroupLeadsOutOfTheHierarchy(t *testing.T) {
	if got, root := Dir("../../../../proc"), Dir(""); got != filepath.Join(root, "proc") {
		t.Errorf("got %s, want one below %s", got, root)
	}
}
