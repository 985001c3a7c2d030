package steer

import (
	"errors"
	"fmt"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"
)

// tether checks whether a program is still attached to a reuseport group. The kernel has no call
// that answers this.
//
// Each program gets a separate map with one socket, and nothing else holds that program or that
// map. So the map lives as long as the program is attached, and while the map lives no other map
// takes the socket (EBUSY from reuseport_array_update_check in kernel/bpf/reuseport_array.c). A
// check is one system call and changes nothing.
//
// The kernel frees the map of a detached program after an RCU grace period, so a check may be some
// milliseconds late. The socket is a UDP socket on loopback in the shim's network namespace, and
// nothing is sent to it. A tether owns its socket.
type tether struct{ socket int }

// newTether ties a program. Then the caller attaches the program and closes it.
func newTether(program *ebpf.Program) (t *tether, err error) {
	t = &tether{}
	t.socket, err = unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return nil, fmt.Errorf("tie program: socket: %w", err)
	}
	defer func() {
		if err != nil {
			err = errors.Join(fmt.Errorf("tie program: %w", err), t.close())
		}
	}()
	if err := unix.SetsockoptInt(t.socket, unix.SOL_SOCKET, unix.SO_REUSEPORT, 1); err != nil {
		return nil, fmt.Errorf("setsockopt SO_REUSEPORT: %w", err)
	}
	if err := unix.Bind(t.socket, &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}); err != nil {
		return nil, fmt.Errorf("bind 127.0.0.1: %w", err)
	}
	held, err := socketMap("unitgen_tether")
	if err != nil {
		return nil, err
	}
	defer held.Close()
	if err := held.Update(uint32(0), uint64(t.socket), ebpf.UpdateAny); err != nil {
		return nil, fmt.Errorf("fill map: %w", err)
	}
	if err := program.BindMap(held); err != nil {
		return nil, fmt.Errorf("bind map to program: %w", err)
	}
	return t, nil
}

// holds reports whether the program is attached.
func (t *tether) holds(trial *ebpf.Map) (bool, error) {
	err := trial.Update(uint32(0), uint64(t.socket), ebpf.UpdateAny)
	if errors.Is(err, unix.EBUSY) {
		return true, nil
	}
	if err != nil {
		return false, fmt.Errorf("look whether the steering program is attached: %w", err)
	}
	if err := trial.Delete(uint32(0)); err != nil {
		return false, fmt.Errorf("look whether the steering program is attached: %w", err)
	}
	return false, nil
}

func (t *tether) close() error {
	if err := unix.Close(t.socket); err != nil {
		return fmt.Errorf("close socket of tether: %w", err)
	}
	return nil
}

// socketMap creates a map for one socket; the caller closes it.
func socketMap(name string) (*ebpf.Map, error) {
	m, err := newMap(&ebpf.MapSpec{
		Name: name, Type: ebpf.ReusePortSockArray, KeySize: 4, ValueSize: 8, MaxEntries: 1,
	})
	if err != nil {
		return nil, fmt.Errorf("create socket map: %w", err)
	}
	return m, nil
}
