package steer

import (
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"
)

// ErrLayout is wrapped when stored maps were written by a release with another layout: adopt
// nothing, and call New.
var ErrLayout = errors.New("state map has another layout")

// Maps are the descriptors of a group's kernel state, in the form in which they are kept elsewhere:
// in PID 1's descriptor store, with FDPOLL=0, as the kernel reports EPOLLERR for map descriptors
// and PID 1 would drop them.
type Maps struct {
	Slots int // BPF_MAP_TYPE_REUSEPORT_SOCKARRAY: slot number to listener
	State int // BPF_MAP_TYPE_ARRAY, mmapable: ring, flags, counters
}

// newMaps creates empty maps; the caller closes them.
func newMaps() (slots, state *ebpf.Map, err error) {
	// Values of 8 bytes are descriptors on update and socket cookies on look-up
	// (kernel/bpf/reuseport_array.c).
	slots, err = newMap(&ebpf.MapSpec{
		Name: "unitgen_slots", Type: ebpf.ReusePortSockArray, KeySize: 4, ValueSize: 8, MaxEntries: Slots,
	})
	if err != nil {
		return nil, nil, fmt.Errorf("create slot map: %w", err)
	}
	version := make([]byte, stateSize)
	binary.NativeEndian.PutUint64(version, layoutVersion)
	state, err = newMap(&ebpf.MapSpec{
		Name: "unitgen_state", Type: ebpf.Array, KeySize: 4, ValueSize: stateSize, MaxEntries: 1,
		Flags: unix.BPF_F_MMAPABLE, Contents: []ebpf.MapKV{{Key: uint32(0), Value: version}},
	})
	if err != nil {
		slots.Close()
		return nil, nil, fmt.Errorf("create state map: %w", err)
	}
	return slots, state, nil
}

// takeMaps turns stored descriptors into maps and takes them over, also on error. Maps that this
// release cannot use give an error that wraps ErrLayout.
func takeMaps(m Maps) (slots, state *ebpf.Map, err error) {
	slots, err = ebpf.NewMapFromFD(m.Slots)
	if err != nil {
		unix.Close(m.State)
		return nil, nil, fmt.Errorf("adopt slot map: %w", err)
	}
	state, err = ebpf.NewMapFromFD(m.State)
	if err != nil {
		slots.Close()
		return nil, nil, fmt.Errorf("adopt state map: %w", err)
	}
	if err := checkMaps(slots, state); err != nil {
		slots.Close()
		state.Close()
		return nil, nil, err
	}
	return slots, state, nil
}

func checkMaps(slots, state *ebpf.Map) error {
	for _, m := range []struct {
		name           string
		is             *ebpf.Map
		kind           ebpf.MapType
		value, entries uint32
	}{
		{"slot", slots, ebpf.ReusePortSockArray, 8, Slots},
		{"state", state, ebpf.Array, stateSize, 1},
	} {
		if m.is.Type() != m.kind || m.is.KeySize() != 4 || m.is.ValueSize() != m.value || m.is.MaxEntries() != m.entries {
			return fmt.Errorf("adopt %s map: %v of %d x %d bytes: %w",
				m.name, m.is.Type(), m.is.MaxEntries(), m.is.ValueSize(), ErrLayout)
		}
	}
	if state.Flags()&unix.BPF_F_MMAPABLE == 0 {
		return fmt.Errorf("adopt state map: not mmapable: %w", ErrLayout)
	}
	return nil
}
