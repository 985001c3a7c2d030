package steer

import (
	"fmt"

	"github.com/cilium/ebpf/asm"

	"github.com/unitgen/unitgen/internal/balance"
)

const (
	// maxScan is the maximum number of members that are all compared. With more members the program
	// picks the better of two random ones, which is nearly as even and costs the same for any
	// number.
	maxScan = 64

	// Reservations are kept by windows of 2^30 ns, about a second: longer than a handshake takes,
	// and short enough that connection requests that are never completed do not count for long.
	windowShift = 30

	stackWindow = -32 // u64: the current window, in the high half
	stackBest   = -40 // u64: position of the best so far
)

// programOf returns the strategy whose program picks for s. Strategies without a separate program
// are in the ring.
func programOf(s balance.Strategy) balance.Strategy {
	switch s {
	case balance.LeastConnections, balance.RandomTwo, balance.SourceHash:
		return s
	}
	return balance.RoundRobin
}

// Pick sets the strategy; the ring stays. Pick refuses a strategy that needs Count or AdoptCount
// before that call, as all counts would be zero.
func (g *Group) Pick(s balance.Strategy) error {
	s = programOf(s)
	if s == g.strategy {
		return nil
	}
	if s.CountsConnections() && g.marks == nil {
		return fmt.Errorf("pick by open connections: connections are not counted")
	}
	before := g.strategy
	g.strategy = s
	if err := g.attach(); err != nil {
		g.strategy = before
		return err
	}
	return g.SetRing(g.Ring())
}

// entries puts a ring in the form that the program of strategy s reads: for RoundRobin each slot as
// often as it is in the ring; for LeastConnections once, with that number as its weight; for
// RandomTwo as often and with its weight; for SourceHash as the table of balance.Table.
func entries(s balance.Strategy, ring []uint16) []uint32 {
	all := make([]uint32, 0, len(ring))
	weights := make(map[uint16]uint32)
	for _, slot := range ring {
		weights[slot]++
	}
	switch s {
	case balance.LeastConnections:
		for _, slot := range ring {
			if weight := weights[slot]; weight > 0 {
				all = append(all, uint32(slot)|weight<<weightShift)
				weights[slot] = 0 // it is in
			}
		}
	case balance.RandomTwo:
		for _, slot := range ring {
			all = append(all, uint32(slot)|weights[slot]<<weightShift)
		}
	case balance.SourceHash:
		members := make([]balance.Member, 0, len(weights))
		for slot, weight := range weights {
			members = append(members, balance.Member{ID: int(slot), Weight: int(weight)})
		}
		for _, slot := range balance.Table(members, MaxRing) {
			all = append(all, uint32(slot))
		}
	default:
		for _, slot := range ring {
			all = append(all, uint32(slot))
		}
	}
	return all
}

// unfold returns the slots of entries, each as often as it counts. It is the inverse of entries,
// with two exceptions: for LeastConnections the order of a ring means nothing, and for SourceHash
// the ring is the table.
func unfold(entries []uint32) []uint16 {
	times := make(map[uint16]int)
	repeated := false // each entry counts once, then
	for _, e := range entries {
		times[uint16(e)]++
		repeated = repeated || times[uint16(e)] > 1
	}
	ring := make([]uint16, 0, len(entries))
	for _, e := range entries {
		count := max(e>>weightShift, 1)
		if repeated {
			count = 1
		}
		for range count {
			ring = append(ring, uint16(e))
		}
	}
	return ring
}

// noteWindow stores the current window of reservations at stackWindow. It clobbers the registers
// that a call clobbers.
func noteWindow() asm.Instructions {
	return asm.Instructions{
		asm.FnKtimeGetNs.Call().WithSymbol("choose"),
		asm.RSh.Imm(asm.R0, windowShift),
		asm.LSh.Imm(asm.R0, 32),
		asm.StoreMem(asm.RFP, stackWindow, asm.R0, asm.DWord),
	}
}

// chooseTwo replaces the number of the pick in regPos by the position of the better of two random
// entries.
func chooseTwo() asm.Instructions {
	ins := append(noteWindow(),
		asm.LoadMem(asm.R1, asm.RFP, stackLength, asm.DWord),
		asm.JEq.Imm(asm.R1, 0, "park"),
	)
	return append(ins, bestOfTwo()...)
}

// chooseLeast replaces the number of the pick in regPos by the position of the member with the
// fewest connections, open or under way, relative to its weight. It scans members from the number's
// position on, so that equal members take turns.
//
// Open connections alone are not enough: the count of a member rises only when a handshake is
// complete, and all requests of one round trip would go to the same member. So each pick is a
// reservation, which the counting program ends.
func chooseLeast() asm.Instructions {
	ins := append(noteWindow(),
		asm.LoadMem(asm.R1, asm.RFP, stackLength, asm.DWord),
		asm.JEq.Imm(asm.R1, 0, "park"),
		asm.Mod.Reg(regPos, asm.R1),
		asm.JGT.Imm(asm.R1, maxScan, "random"),
	)
	ins = append(ins, scanAll()...)
	return append(ins, bestOfTwo()...)
}

// scanAll compares all members. R4 is the position of the best, R5 its load.
//
// It is unrolled and without branches but the exits: a shim with CAP_BPF but without CAP_PERFMON
// gets its program verified for speculative execution too, and there a loop never ends (EINVAL) and
// branches multiply the paths (EFAULT).
func scanAll() asm.Instructions {
	ins := asm.Instructions{
		asm.Mov.Reg(asm.R4, regPos),
		asm.LoadImm(asm.R5, 1<<62, asm.DWord),
	}
	for i := range maxScan {
		ins = append(ins, load(regPos)...)
		ins = append(ins,
			// R1 = load < R5; by it R5 and R4 are replaced.
			asm.Sub.Reg(asm.R0, asm.R5),
			asm.Mov.Reg(asm.R1, asm.R0),
			asm.RSh.Imm(asm.R1, 63),
			asm.Mul.Reg(asm.R0, asm.R1),
			asm.Add.Reg(asm.R5, asm.R0),
			asm.Mov.Reg(asm.R2, regPos),
			asm.Sub.Reg(asm.R2, asm.R4),
			asm.Mul.Reg(asm.R2, asm.R1),
			asm.Add.Reg(asm.R4, asm.R2),

			asm.LoadMem(asm.R1, asm.RFP, stackLength, asm.DWord),
			asm.JLE.Imm(asm.R1, int32(i)+1, "scanned"),
			asm.Add.Imm(regPos, 1),
			asm.Mod.Reg(regPos, asm.R1),
		)
	}
	return append(ins,
		asm.Mov.Reg(regPos, asm.R4).WithSymbol("scanned"),
		asm.Ja.Label("deliver"),
	)
}

// bestOfTwo compares two random members, which may be the same.
func bestOfTwo() asm.Instructions {
	ins := asm.Instructions{
		asm.FnGetPrandomU32.Call().WithSymbol("random"),
		asm.LoadMem(asm.R1, asm.RFP, stackLength, asm.DWord),
		asm.Mod.Reg(asm.R0, asm.R1),
		asm.Mov.Reg(regPos, asm.R0),
		asm.FnGetPrandomU32.Call(),
		asm.LoadMem(asm.R1, asm.RFP, stackLength, asm.DWord),
		asm.Mod.Reg(asm.R0, asm.R1),
		asm.Mov.Reg(regTries, asm.R0),
	}
	ins = append(ins, load(regPos)...)
	ins = append(ins, asm.Mov.Reg(asm.R5, asm.R0))
	ins = append(ins, load(regTries)...)
	return append(ins,
		asm.JGE.Reg(asm.R0, asm.R5, "deliver"),
		asm.Mov.Reg(regPos, regTries),
	)
}

// load computes R0 = (open + reserved + 1) * 2^16 / weight of the member at a position of the ring,
// without a branch. It clobbers R1 to R3.
func load(position asm.Register) asm.Instructions {
	ins := entryAt(position)
	ins = append(ins,
		asm.Mov.Reg(asm.R3, asm.R1),
		asm.RSh.Imm(asm.R3, weightShift),
	)
	ins = append(ins, slotBase()...)
	return append(ins,
		asm.Mov.Reg(asm.R1, asm.R2),
		asm.Add.Imm(asm.R1, offOpen),
		asm.LoadMem(asm.R0, asm.R1, 0, asm.DWord),
		asm.Add.Imm(asm.R0, 1),

		// A reservation word has its window in the high half: R1 = its count if that is the current
		// one, else zero.
		asm.Add.Imm(asm.R2, offReserved),
		asm.LoadMem(asm.R1, asm.R2, 0, asm.DWord),
		asm.LoadMem(asm.R2, asm.RFP, stackWindow, asm.DWord),
		asm.Xor.Reg(asm.R1, asm.R2),
		asm.Mov.Reg(asm.R2, asm.R1),
		asm.RSh.Imm(asm.R2, 32),
		asm.Sub.Imm(asm.R2, 1),
		asm.RSh.Imm(asm.R2, 63),
		asm.Mul.Reg(asm.R1, asm.R2),
		asm.Add.Reg(asm.R0, asm.R1),

		// Weight zero is one.
		asm.Mov.Reg(asm.R2, asm.R3),
		asm.Sub.Imm(asm.R2, 1),
		asm.RSh.Imm(asm.R2, 63),
		asm.Add.Reg(asm.R3, asm.R2),
		asm.LSh.Imm(asm.R0, 16),
		asm.Div.Reg(asm.R0, asm.R3),
	)
}

// reserve adds one to the reservations of the slot whose base is in R2, or begins the current
// window with one. It is not atomic with the beginning of a window on another CPU: a reservation
// that is lost or counted twice there ends with the window. A migration, which note has left with,
// reserves nothing, as its handshake is over.
func reserve() asm.Instructions {
	return asm.Instructions{
		asm.Add.Imm(asm.R2, offReserved),
		asm.LoadMem(asm.R1, asm.R2, 0, asm.DWord),
		asm.LoadMem(asm.R3, asm.RFP, stackWindow, asm.DWord),
		asm.Xor.Reg(asm.R1, asm.R3),
		asm.RSh.Imm(asm.R1, 32),
		asm.JEq.Imm(asm.R1, 0, "same_window"),
		asm.Or.Imm(asm.R3, 1),
		asm.StoreMem(asm.R2, 0, asm.R3, asm.DWord),
		asm.Ja.Label("pass"),
		asm.Mov.Imm(asm.R1, 1).WithSymbol("same_window"),
		asm.AddAtomic.Mem(asm.R2, asm.R1, asm.DWord, 0),
	}
}
