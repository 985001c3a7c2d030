package steer

import (
	"errors"
	"fmt"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"
)

// newMap and newProgram are ebpf.NewMap and ebpf.NewProgram with a better error. For EPERM the
// library says that RLIMIT_MEMLOCK may be too low, which has no effect since Linux 5.11. The
// missing thing is the privilege, which units of a user's manager never have.
func newMap(spec *ebpf.MapSpec) (*ebpf.Map, error) {
	m, err := ebpf.NewMap(spec)
	return m, privilege(err)
}

func newProgram(spec *ebpf.ProgramSpec) (*ebpf.Program, error) {
	p, err := ebpf.NewProgram(spec)
	return p, privilege(err)
}

func privilege(err error) error {
	if errors.Is(err, unix.EPERM) {
		return fmt.Errorf("bpf: %w, as CAP_BPF is missing", unix.EPERM)
	}
	return err
}
