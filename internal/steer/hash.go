package steer

import (
	"encoding/binary"

	"github.com/cilium/ebpf/asm"
)

// SourceHash gives the connections of one client address to one slot: the address is hashed to a
// bucket of the table, which is the ring (see entries). An IPv4 address counts as its IPv4-mapped
// IPv6 address, so a client has the same bucket at an IPv4 and at a dual-stack listener. The hash
// has no secret and is the same in each process and release, so a client finds its slot again after
// a restart of the shim or the host. A client with many addresses can choose among slots.
//
// If a slot is empty for a moment, its connections go to any slot of the table. A moved connection
// goes to the slot that its address has at that time.

// Offsets in struct bpf_sock (linux/bpf.h), for a migration, which has no packet.
const (
	sockFamily = 4
	sockDst4   = 52
	sockDst6   = 56

	familyIPv4 = 2
)

const (
	protocolIPv6 = 0x86dd // ETH_P_IPV6
	source4      = 12     // offset of the source address in the IPv4 header
	source6      = 8      // likewise, IPv6
	startNetwork = 1      // BPF_HDR_START_NET

	stackAddress = -48 // 16 bytes: the client's IPv6 address

	// Odd constants of the MurmurHash3 finalizer; as 64-bit immediates.
	hashFirst  = 0xff51afd7ed558ccd
	hashSecond = 0xc4ceb9fe1a85ec53
)

// chooseByHash replaces regPos by the bucket of the client's address.
func chooseByHash() asm.Instructions {
	ins := asm.Instructions{
		asm.LoadMem(asm.R1, asm.RFP, stackLength, asm.DWord).WithSymbol("choose"),
		asm.JEq.Imm(asm.R1, 0, "park"),
		// ::ffff:0.0.0.0; an IPv4 client replaces the end.
		asm.Mov.Imm(asm.R1, 0),
		asm.StoreMem(asm.RFP, stackAddress, asm.R1, asm.DWord),
		asm.StoreImm(asm.RFP, stackAddress+8, int64(int32(networkOrder32(0xffff))), asm.Word),
		asm.StoreMem(asm.RFP, stackAddress+12, asm.R1, asm.Word),

		asm.LoadMem(asm.R1, regCtx, ctxMigrating, asm.DWord),
		asm.JNE.Imm(asm.R1, 0, "moved"),
		asm.Mov.Reg(asm.R1, regCtx),
		asm.Mov.Reg(asm.R3, asm.RFP),
		asm.Mov.Imm(asm.R5, startNetwork),
		asm.LoadMem(asm.R2, regCtx, ctxProtocol, asm.Word),
		asm.JEq.Imm(asm.R2, int32(networkOrder16(protocolIPv6)), "six"),
		asm.Mov.Imm(asm.R2, source4),
		asm.Add.Imm(asm.R3, stackAddress+12),
		asm.Mov.Imm(asm.R4, 4),
		asm.FnSkbLoadBytesRelative.Call(),
		asm.Ja.Label("hash"),

		asm.Mov.Imm(asm.R2, source6).WithSymbol("six"),
		asm.Add.Imm(asm.R3, stackAddress),
		asm.Mov.Imm(asm.R4, 16),
		asm.FnSkbLoadBytesRelative.Call(),
		asm.Ja.Label("hash"),

		asm.LoadMem(asm.R2, asm.R1, sockFamily, asm.Word).WithSymbol("moved"),
		asm.JEq.Imm(asm.R2, familyIPv4, "moved4"),
	}
	for i := int16(0); i < 16; i += 4 {
		ins = append(ins,
			asm.LoadMem(asm.R2, asm.R1, sockDst6+i, asm.Word),
			asm.StoreMem(asm.RFP, stackAddress+i, asm.R2, asm.Word),
		)
	}
	ins = append(ins,
		asm.Ja.Label("hash"),
		asm.LoadMem(asm.R2, asm.R1, sockDst4, asm.Word).WithSymbol("moved4"),
		asm.StoreMem(asm.RFP, stackAddress+12, asm.R2, asm.Word),
	)
	return append(ins, hashAddress()...)
}

// hashAddress is bucket for the address at stackAddress, as a program.
func hashAddress() asm.Instructions {
	return asm.Instructions{
		asm.LoadMem(regPos, asm.RFP, stackAddress, asm.DWord).WithSymbol("hash"),
		asm.HostTo(asm.BE, regPos, asm.DWord),
		asm.LoadImm(asm.R2, wrap(hashFirst), asm.DWord),
		asm.Mul.Reg(regPos, asm.R2),
		asm.Mov.Reg(asm.R3, regPos),
		asm.RSh.Imm(asm.R3, 32),
		asm.Xor.Reg(regPos, asm.R3),
		asm.LoadMem(asm.R3, asm.RFP, stackAddress+8, asm.DWord),
		asm.HostTo(asm.BE, asm.R3, asm.DWord),
		asm.Add.Reg(regPos, asm.R3),
		asm.Mul.Reg(regPos, asm.R2),
		asm.Mov.Reg(asm.R3, regPos),
		asm.RSh.Imm(asm.R3, 33),
		asm.Xor.Reg(regPos, asm.R3),
		asm.LoadImm(asm.R2, wrap(hashSecond), asm.DWord),
		asm.Mul.Reg(regPos, asm.R2),
		asm.Mov.Reg(asm.R3, regPos),
		asm.RSh.Imm(asm.R3, 33),
		asm.Xor.Reg(regPos, asm.R3),
		asm.LoadMem(asm.R1, asm.RFP, stackLength, asm.DWord),
		asm.Mod.Reg(regPos, asm.R1),
	}
}

// networkOrder16 returns n as this machine reads it from a packet.
func networkOrder16(n uint16) uint16 {
	return binary.NativeEndian.Uint16(binary.BigEndian.AppendUint16(nil, n))
}

// networkOrder32 is networkOrder16 for 32 bits.
func networkOrder32(n uint32) uint32 {
	return binary.NativeEndian.Uint32(binary.BigEndian.AppendUint32(nil, n))
}

// wrap is n with the same bits.
func wrap(n uint64) int64 { return int64(n) }
