package steer

import (
	"fmt"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"

	"github.com/unitgen/unitgen/internal/balance"
)

// Offsets in struct sk_reuseport_md (linux/bpf.h).
const (
	ctxData      = 0
	ctxDataEnd   = 8
	ctxProtocol  = 20
	ctxHash      = 32
	ctxMigrating = 48
)

// Verdicts of an SK_REUSEPORT program (enum sk_action).
const (
	skDrop = 0
	skPass = 1
)

const (
	// maxTries is how many ring entries are tried where slots are empty. A slot is empty only
	// between the end of its listener and the next ring, so more would be needed only when most
	// instances go at once; then connections park.
	maxTries = 16

	tcpSource = 0  // offset of the source port in the TCP header
	tcpFlags  = 13 // offset of the flag byte in the TCP header
	tcpSYN    = 0x02
)

// Registers and stack slots of the program. Helper calls clobber R0 to R5.
const (
	regCtx   = asm.R6 // struct sk_reuseport_md *
	regState = asm.R7 // the state map's value
	regPos   = asm.R8 // the number of this pick, then the position in the ring
	regTries = asm.R9

	stackKey    = -4  // u32: the slot asked for
	stackLength = -16 // u64: length of the ring
	stackStart  = -24 // u64: first entry of the ring
)

// loadProgram loads the steering program over a group's maps; the caller closes it. Loading needs
// CAP_BPF.
//
// It is attached as SELECT_OR_MIGRATE: the kernel asks it also where the queue of a listener that
// goes away shall move (net/core/sock_reuseport.c, reuseport_migrate_sock).
func loadProgram(s balance.Strategy, slots, state *ebpf.Map) (*ebpf.Program, error) {
	choose := map[balance.Strategy]func() asm.Instructions{
		balance.RoundRobin: chooseNext, balance.LeastConnections: chooseLeast, balance.RandomTwo: chooseTwo, balance.SourceHash: chooseByHash,
	}[s]
	parts := []asm.Instructions{enter(state), choose(), deliver(slots), park(slots), count(), note()}
	if s.CountsConnections() {
		parts = append(parts, reserve())
	}
	var program asm.Instructions
	for _, part := range append(parts, leave(), probe(slots)) {
		program = append(program, part...)
	}
	p, err := newProgram(&ebpf.ProgramSpec{
		Name:         "unitgen_steer",
		Type:         ebpf.SkReuseport,
		AttachType:   ebpf.AttachSkReuseportSelectOrMigrate,
		License:      "Apache-2.0",
		Instructions: program,
	})
	if err != nil {
		return nil, fmt.Errorf("load steering program: %w", err)
	}
	return p, nil
}

// enter reads the state, refuses if the group is closed, and leaves the number of this pick in
// regPos and the ring's start and length on the stack.
//
// Only a SYN or a migration takes a number. Anything else that looks for a listener is a stray
// segment or the last ACK of a SYN cookie; it is placed by its hash, so that strays do not disturb
// the order.
func enter(state *ebpf.Map) asm.Instructions {
	return asm.Instructions{
		asm.Mov.Reg(regCtx, asm.R1),
		asm.LoadMapValue(regState, state.FD(), 0),
		asm.LoadMem(regPos, regState, offControl, asm.DWord),

		asm.Mov.Reg(asm.R1, regPos),
		asm.And.Imm(asm.R1, controlMask),
		asm.StoreMem(asm.RFP, stackStart, asm.R1, asm.DWord),
		asm.Mov.Reg(asm.R1, regPos),
		asm.RSh.Imm(asm.R1, controlLength),
		asm.And.Imm(asm.R1, controlMask),
		asm.StoreMem(asm.RFP, stackLength, asm.R1, asm.DWord),

		asm.LoadMem(asm.R1, regCtx, ctxMigrating, asm.DWord),
		asm.JNE.Imm(asm.R1, 0, "migrating"),

		asm.LoadImm(asm.R1, controlClosed, asm.DWord),
		asm.And.Reg(asm.R1, regPos),
		asm.JNE.Imm(asm.R1, 0, "refuse"),

		asm.LoadMem(asm.R2, regCtx, ctxData, asm.DWord),
		asm.LoadMem(asm.R3, regCtx, ctxDataEnd, asm.DWord),
		asm.Mov.Reg(asm.R1, asm.R2),
		asm.Add.Imm(asm.R1, tcpFlags+1),
		asm.JGT.Reg(asm.R1, asm.R3, "number"),
		asm.LoadMem(asm.R1, asm.R2, tcpFlags, asm.Byte),
		asm.And.Imm(asm.R1, tcpSYN),
		asm.JNE.Imm(asm.R1, 0, "request"),
		asm.LoadMem(regPos, regCtx, ctxHash, asm.Word),
		asm.Ja.Label("choose"),

		asm.LoadImm(asm.R1, controlProbe, asm.DWord).WithSymbol("request"),
		asm.And.Reg(asm.R1, regPos),
		asm.JEq.Imm(asm.R1, 0, "number"),
		asm.LoadMem(asm.R1, asm.R2, tcpSource, asm.Half),
		asm.LoadMem(asm.R3, regState, offProbe, asm.DWord),
		asm.Mov.Reg(asm.R4, asm.R3),
		asm.And.Imm(asm.R4, 1<<16-1),
		asm.JEq.Reg(asm.R1, asm.R4, "probe"),
		asm.Ja.Label("number"),

		asm.Mov.Imm(asm.R1, 1).WithSymbol("migrating"),
		asm.AddAtomic.Mem(regState, asm.R1, asm.DWord, offMigrated),

		asm.Mov.Imm(regPos, 1).WithSymbol("number"),
		fetchAdd(regState, regPos, offCounter),
	}
}

// chooseNext turns the number of the pick into a position in the ring; an empty ring parks.
func chooseNext() asm.Instructions {
	return asm.Instructions{
		asm.LoadMem(asm.R1, asm.RFP, stackLength, asm.DWord).WithSymbol("choose"),
		asm.JEq.Imm(asm.R1, 0, "park"),
		asm.Mod.Reg(regPos, asm.R1),
	}
}

// deliver gives the connection to the slot at regPos. If that is empty it takes another number and
// tries again: so the members that are there stay as even as if the empty one were not on the ring.
func deliver(slots *ebpf.Map) asm.Instructions {
	ins := asm.Instructions{asm.Mov.Imm(regTries, 0).WithSymbol("deliver")}
	entry := entryAt(regPos)
	entry[0] = entry[0].WithSymbol("try")
	ins = append(ins, entry...)
	ins = append(ins,
		asm.And.Imm(asm.R1, Slots-1),
		asm.StoreMem(asm.RFP, stackKey, asm.R1, asm.Word),
	)
	ins = append(ins, selectSlot(slots)...)
	return append(ins,
		asm.JEq.Imm(asm.R0, 0, "steered"),

		asm.Mov.Imm(regPos, 1),
		fetchAdd(regState, regPos, offCounter),
		asm.LoadMem(asm.R1, asm.RFP, stackLength, asm.DWord),
		asm.Mod.Reg(regPos, asm.R1),
		asm.Add.Imm(regTries, 1),
		asm.JLT.Imm(regTries, maxTries, "try"),
	)
}

// park gives the connection to the parking listener. Without a parking listener the kernel picks
// any member by hash: that is better than a refusal, and is counted.
func park(slots *ebpf.Map) asm.Instructions {
	ins := asm.Instructions{
		asm.Mov.Imm(asm.R1, Parking).WithSymbol("park"),
		asm.StoreMem(asm.RFP, stackKey, asm.R1, asm.Word),
	}
	ins = append(ins, selectSlot(slots)...)
	return append(ins,
		asm.JEq.Imm(asm.R0, 0, "parked"),
		asm.Mov.Imm(asm.R1, 1),
		asm.AddAtomic.Mem(regState, asm.R1, asm.DWord, offPassed),
		asm.Ja.Label("pass"),

		// Not by way of "steered": without CAP_PERFMON the verifier refuses an addition to a map
		// pointer that is reached with a constant on one path and a variable on another.
		asm.Mov.Reg(asm.R2, regState).WithSymbol("parked"),
		asm.Add.Imm(asm.R2, offSteered+8*Parking),
		asm.Mov.Imm(asm.R1, 1),
		asm.AddAtomic.Mem(asm.R2, asm.R1, asm.DWord, 0),
		asm.Ja.Label("pass"),
	)
}

// count counts the connection for its slot.
func count() asm.Instructions {
	ins := asm.Instructions{asm.LoadMem(asm.R1, asm.RFP, stackKey, asm.Word).WithSymbol("steered")}
	ins = append(ins, slotBase()...)
	return append(ins,
		asm.Mov.Reg(asm.R3, asm.R2),
		asm.Add.Imm(asm.R3, offSteered),
		asm.Mov.Imm(asm.R1, 1),
		asm.AddAtomic.Mem(asm.R3, asm.R1, asm.DWord, 0),
	)
}

// note remembers where a connection goes that moves, and leaves. A connection that is new goes on
// with all registers but R0 and R1. The helper takes a socket here (kernel 5.14, as migrations).
func note() asm.Instructions {
	return asm.Instructions{
		asm.LoadMem(asm.R1, regCtx, ctxMigrating, asm.DWord),
		asm.JEq.Imm(asm.R1, 0, "noted"),
		asm.FnGetSocketCookie.Call(),
		asm.LSh.Imm(asm.R0, slotBits),
		asm.LoadMem(asm.R1, asm.RFP, stackKey, asm.Word),
		asm.Or.Reg(asm.R0, asm.R1),

		asm.Mov.Imm(asm.R1, 1),
		fetchAdd(regState, asm.R1, offMoves),
		asm.And.Imm(asm.R1, Moves-1),
		asm.LSh.Imm(asm.R1, 3),
		asm.Mov.Reg(asm.R2, regState),
		asm.Add.Reg(asm.R2, asm.R1),
		asm.Add.Imm(asm.R2, offMove),
		asm.StoreMem(asm.R2, 0, asm.R0, asm.DWord),
		asm.Ja.Label("pass"),
		asm.Mov.Imm(asm.R0, 0).WithSymbol("noted"),
	}
}

// leave has the exits for placed and for refused connections.
func leave() asm.Instructions {
	return asm.Instructions{
		asm.Mov.Imm(asm.R0, skPass).WithSymbol("pass"),
		asm.Return(),

		asm.Mov.Imm(asm.R1, 1).WithSymbol("refuse"),
		asm.AddAtomic.Mem(regState, asm.R1, asm.DWord, offRefused),
		asm.Mov.Imm(asm.R0, skDrop),
		asm.Return(),
	}
}

// probe gives the connection to the slot in the probe word, in R3. It takes no number and is not
// counted, so a probe does not change where other connections go.
func probe(slots *ebpf.Map) asm.Instructions {
	ins := asm.Instructions{
		asm.RSh.Imm(asm.R3, 16).WithSymbol("probe"),
		asm.And.Imm(asm.R3, Slots-1),
		asm.StoreMem(asm.RFP, stackKey, asm.R3, asm.Word),
	}
	ins = append(ins, selectSlot(slots)...)
	return append(ins,
		asm.JEq.Imm(asm.R0, 0, "pass"),
		asm.Ja.Label("park"),
	)
}

// entryAt loads into R1 the ring entry at a position. It clobbers R2.
func entryAt(position asm.Register) asm.Instructions {
	return asm.Instructions{
		asm.LoadMem(asm.R1, asm.RFP, stackStart, asm.DWord),
		asm.Add.Reg(asm.R1, position),
		asm.And.Imm(asm.R1, 2*MaxRing-1), // for the verifier: the position is in the ring area
		asm.LSh.Imm(asm.R1, 2),           // times ringEntry
		asm.Mov.Reg(asm.R2, regState),
		asm.Add.Reg(asm.R2, asm.R1),
		asm.LoadMem(asm.R1, asm.R2, offRing, asm.Word),
	}
}

// slotBase leaves in R2 what, with the offset of an array of 8-byte counters added, points to the
// one of the slot in R1. It clobbers R1.
func slotBase() asm.Instructions {
	return asm.Instructions{
		asm.And.Imm(asm.R1, Slots-1),
		asm.LSh.Imm(asm.R1, 3),
		asm.Mov.Reg(asm.R2, regState),
		asm.Add.Reg(asm.R2, asm.R1),
	}
}

// selectSlot calls bpf_sk_select_reuseport for the slot at stackKey. R0 is then zero, or an error:
// the slot is empty, or holds a listener of another group.
func selectSlot(slots *ebpf.Map) asm.Instructions {
	return asm.Instructions{
		asm.Mov.Reg(asm.R1, regCtx),
		asm.LoadMapPtr(asm.R2, slots.FD()),
		asm.Mov.Reg(asm.R3, asm.RFP),
		asm.Add.Imm(asm.R3, stackKey),
		asm.Mov.Imm(asm.R4, 0),
		asm.FnSkSelectReuseport.Call(),
	}
}

// fetchAdd emits `src = atomic_fetch_add((u64 *)(dst + offset), src)`.
//
// asm.FetchAdd of cilium/ebpf v0.22 loses its fetch bit when it is marshalled (the constant is
// copied before the bit is set), and the program then sees the same number for ever. Setting
// Constant by hand keeps it; the tests of the exact spread fail without.
func fetchAdd(dst, src asm.Register, offset int16) asm.Instruction {
	ins := asm.FetchAdd.Mem(dst, src, asm.DWord, offset)
	ins.Constant = 1 // BPF_FETCH
	return ins
}
