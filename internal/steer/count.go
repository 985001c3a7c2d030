package steer

import (
	"errors"
	"fmt"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/btf"
	"github.com/cilium/ebpf/link"
	"golang.org/x/sys/unix"
)

// Offsets in struct bpf_sock_ops, and its constants (linux/bpf.h).
const (
	opsOp      = 0
	opsNewTCP  = 8 // args[1]: the new state, for opState
	opsSock    = 184
	opAccepted = 5  // BPF_SOCK_OPS_PASSIVE_ESTABLISHED_CB
	opState    = 10 // BPF_SOCK_OPS_STATE_CB
	opStates   = 4  // BPF_SOCK_OPS_STATE_CB_FLAG
	tcpClose   = 7  // BPF_TCP_CLOSE
)

// Counter has the descriptors that keep the counting alive when the shim has ended. They are stored
// as Maps are.
type Counter struct {
	Marks int // BPF_MAP_TYPE_SK_STORAGE: the slot of each listener, cloned into each connection it accepts
	Link  int // the counting program's link to the cgroup
}

// Count begins to count the open connections of each slot. Call it before putting the instances'
// listeners, or put them again. Existing connections are not counted.
//
// cgroup is a borrowed descriptor of a cgroup v2 directory in or above which all of the group's
// listeners were created. The counting program runs for the cgroup of the listener. For a socket
// unit that is the unit's cgroup, also after the listener was passed on. Loading needs CAP_BPF and
// CAP_NET_ADMIN. store is as for New.
func (g *Group) Count(cgroup int, store func(Counter) error) error {
	if g.marks != nil {
		return errors.New("count connections: they are counted already")
	}
	marks, err := newMap(&ebpf.MapSpec{
		Name: "unitgen_marks", Type: ebpf.SkStorage, KeySize: 4, ValueSize: 8,
		Flags: unix.BPF_F_NO_PREALLOC | unix.BPF_F_CLONE,
		Key:   &btf.Int{Name: "int", Size: 4, Encoding: btf.Signed},
		Value: &btf.Int{Name: "mark", Size: 8},
	})
	if err != nil {
		return fmt.Errorf("create mark map: %w", err)
	}
	counter, err := attachCounter(cgroup, marks, g.shared)
	if err != nil {
		return errors.Join(err, marks.Close())
	}
	if err := store(Counter{Marks: marks.FD(), Link: counter.FD()}); err != nil {
		return errors.Join(fmt.Errorf("store counter: %w", err), counter.Close(), marks.Close())
	}
	g.marks, g.counter = marks, counter
	return nil
}

// Counting reports whether connections are counted.
func (g *Group) Counting() bool { return g.marks != nil }

// AdoptCount takes over the counting that an earlier process began with Count; the counts stay as
// they are. It owns the descriptors of c from the call on, also when it fails.
func (g *Group) AdoptCount(c Counter) error {
	if g.marks != nil {
		return errors.Join(errors.New("adopt counter: connections are counted already"), unix.Close(c.Marks), unix.Close(c.Link))
	}
	marks, err := ebpf.NewMapFromFD(c.Marks)
	if err != nil {
		return errors.Join(fmt.Errorf("adopt mark map: %w", err), unix.Close(c.Link))
	}
	if marks.Type() != ebpf.SkStorage || marks.ValueSize() != 8 {
		return errors.Join(fmt.Errorf("adopt mark map: %v of %d bytes: %w", marks.Type(), marks.ValueSize(), ErrLayout),
			marks.Close(), unix.Close(c.Link))
	}
	counter, err := link.NewFromFD(c.Link)
	if err != nil {
		return errors.Join(fmt.Errorf("adopt counter link: %w", err), marks.Close())
	}
	g.marks, g.counter = marks, counter
	return nil
}

// Open returns the number of open connections of a slot, if they are counted: from the end of the
// handshake until the socket is closed. A moved connection counts for the slot that it was steered
// to first. Safe for concurrent use with everything except Close. Slots out of range have none.
func (g *Group) Open(slot int) uint64 {
	if checkSlot(slot) != nil {
		return 0
	}
	return g.state.word(offOpen + 8*slot).Load()
}

// mark records on a listener the slot of its connections.
func (g *Group) mark(slot, listener int) error {
	if err := g.marks.Update(int32(listener), uint64(slot), ebpf.UpdateAny); err != nil {
		return fmt.Errorf("mark listener of slot %d: %w", slot, err)
	}
	return nil
}

// attachCounter loads the counting program and links it to a cgroup, beside other programs there.
func attachCounter(cgroup int, marks, state *ebpf.Map) (*link.RawLink, error) {
	program, err := newProgram(&ebpf.ProgramSpec{
		Name:         "unitgen_count",
		Type:         ebpf.SockOps,
		AttachType:   ebpf.AttachCGroupSockOps,
		License:      "Apache-2.0",
		Instructions: countingProgram(marks, state),
	})
	if err != nil {
		return nil, fmt.Errorf("load counting program: %w", err)
	}
	defer program.Close() // the link holds it
	l, err := link.AttachRawLink(link.RawLinkOptions{
		Target: cgroup, Program: program, Attach: ebpf.AttachCGroupSockOps,
	})
	if err != nil {
		return nil, fmt.Errorf("attach counting program to cgroup: %w", err)
	}
	return l, nil
}

// countingProgram counts a marked connection when its handshake is complete, and uncounts it when
// its socket closes. A bit in its mark says that it is counted, so that a connection that began
// before the program is not subtracted.
func countingProgram(marks, state *ebpf.Map) asm.Instructions {
	const counted = 1 << 16
	ins := asm.Instructions{
		asm.Mov.Reg(regCtx, asm.R1),
		asm.LoadMapValue(regState, state.FD(), 0),
		asm.LoadMem(regPos, regCtx, opsOp, asm.Word),
		asm.JEq.Imm(regPos, opAccepted, "look"),
		asm.JNE.Imm(regPos, opState, "out"),
		asm.LoadMem(asm.R1, regCtx, opsNewTCP, asm.Word),
		asm.JNE.Imm(asm.R1, tcpClose, "out"),

		asm.LoadMem(asm.R2, regCtx, opsSock, asm.DWord).WithSymbol("look"),
		asm.JEq.Imm(asm.R2, 0, "out"),
		asm.LoadMapPtr(asm.R1, marks.FD()),
		asm.Mov.Imm(asm.R3, 0),
		asm.Mov.Imm(asm.R4, 0),
		asm.FnSkStorageGet.Call(),
		asm.JEq.Imm(asm.R0, 0, "out"),
		asm.Mov.Reg(regTries, asm.R0), // the mark
		asm.LoadMem(asm.R1, regTries, 0, asm.DWord),
		asm.Mov.Reg(asm.R3, asm.R1),
	}
	ins = append(ins, slotBase()...)
	return append(ins,
		asm.JEq.Imm(regPos, opAccepted, "accepted"),

		asm.And.Imm(asm.R3, counted),
		asm.JEq.Imm(asm.R3, 0, "out"),
		asm.Mov.Imm(asm.R3, 0),
		asm.StoreMem(regTries, 0, asm.R3, asm.DWord),
		asm.Mov.Imm(asm.R1, -1),
		asm.Add.Imm(asm.R2, offOpen),
		asm.AddAtomic.Mem(asm.R2, asm.R1, asm.DWord, 0),
		asm.Ja.Label("out"),

		asm.Or.Imm(asm.R3, counted).WithSymbol("accepted"),
		asm.StoreMem(regTries, 0, asm.R3, asm.DWord),
		asm.Mov.Imm(asm.R1, 1),
		asm.Mov.Reg(asm.R3, asm.R2),
		asm.Add.Imm(asm.R3, offOpen),
		asm.AddAtomic.Mem(asm.R3, asm.R1, asm.DWord, 0),
		// The connection's reservation ends. If the reservation is from an earlier window, it is
		// over anyway; the borrow from the window then ends that window too.
		asm.Add.Imm(asm.R2, offReserved),
		asm.LoadMem(asm.R1, asm.R2, 0, asm.DWord),
		asm.Mov.Reg32(asm.R1, asm.R1),
		asm.JEq.Imm(asm.R1, 0, "unreserved"),
		asm.Mov.Imm(asm.R1, -1),
		asm.AddAtomic.Mem(asm.R2, asm.R1, asm.DWord, 0),
		asm.Mov.Reg(asm.R1, regCtx).WithSymbol("unreserved"),
		asm.Mov.Imm(asm.R2, opStates),
		asm.FnSockOpsCbFlagsSet.Call(),

		asm.Mov.Imm(asm.R0, 1).WithSymbol("out"),
		asm.Return(),
	)
}
