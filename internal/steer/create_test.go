package steer

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

func TestPrivilege(t *testing.T) {
	library := fmt.Errorf("map create: %w (MEMLOCK may be too low, consider rlimit.RemoveMemlock)", unix.EPERM)
	if err := privilege(library); !errors.Is(err, unix.EPERM) || strings.Contains(err.Error(), "MEMLOCK") {
		t.Errorf("got %v, want what is missing", err)
	}
	if err := privilege(unix.EINVAL); err != unix.EINVAL {
		t.Errorf("got %v, want it as it is", err)
	}
}
