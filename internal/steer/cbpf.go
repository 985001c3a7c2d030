package steer

import (
	"encoding/binary"
	"fmt"
	"net/netip"

	"golang.org/x/sys/unix"

	"github.com/unitgen/unitgen/internal/balance"
)

// Classic BPF (linux/filter.h). The addresses are read relative to the network header, as the
// kernel pulls the TCP header off the packet before it asks (net/core/sock_reuseport.c,
// run_bpf_filter).
const (
	skfRandom = 0xfffff000 + 56 // SKF_AD_OFF + SKF_AD_RANDOM
	skfNet    = 0xfff00000      // SKF_NET_OFF
	bpfMod    = 0x90            // BPF_MOD

	// byHash is an index that no member has; the kernel then picks by hash.
	byHash = 0xffffffff
)

// weighted returns a program that picks at random from the slots of ring, each as likely as it is
// often there. An empty ring parks, and without a parking listener leaves the choice to the
// kernel's hash.
func weighted(ring []uint16, index map[int]int) []unix.SockFilter {
	if len(ring) == 0 {
		if parking, ok := index[Parking]; ok {
			return []unix.SockFilter{give(uint32(parking))}
		}
		return []unix.SockFilter{give(byHash)}
	}
	program := []unix.SockFilter{
		{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS, K: skfRandom},
		{Code: unix.BPF_ALU | bpfMod | unix.BPF_K, K: uint32(len(ring))},
	}
	shares := entries(balance.LeastConnections, ring) // each slot once, with its share
	below := uint32(0)
	for i, e := range shares {
		below += e >> weightShift
		if i < len(shares)-1 { // the last has the rest
			program = append(program, unix.SockFilter{Code: unix.BPF_JMP | unix.BPF_JGE | unix.BPF_K, Jt: 1, K: below})
		}
		program = append(program, give(uint32(index[int(uint16(e))])))
	}
	return program
}

// give returns the instruction that ends a program with a choice.
func give(index uint32) unix.SockFilter {
	return unix.SockFilter{Code: unix.BPF_RET | unix.BPF_K, K: index}
}

// except returns a program that gives connection requests from one address to index, and leaves the
// others to otherwise.
func except(from netip.AddrPort, index uint32, otherwise []unix.SockFilter) []unix.SockFilter {
	type test struct {
		size          uint16
		offset, value uint32
	}
	address := from.Addr().AsSlice()
	low := binary.BigEndian.Uint32(address[len(address)-4:])
	tests := []test{
		{unix.BPF_B, 0, 0x45}, // version 4, no options
		{unix.BPF_W, 12, low},
		{unix.BPF_H, 20, uint32(from.Port())},
	}
	if from.Addr().Is6() {
		tests = []test{
			{unix.BPF_B, 0, 0x60}, // version 6, traffic class below 16
			{unix.BPF_B, 6, unix.IPPROTO_TCP},
			{unix.BPF_W, 20, low},
			{unix.BPF_H, 40, uint32(from.Port())},
		}
	}
	var program []unix.SockFilter
	for i, t := range tests {
		rest := uint8(2*(len(tests)-1-i) + 1) // to the first instruction of otherwise
		program = append(program,
			unix.SockFilter{Code: unix.BPF_LD | t.size | unix.BPF_ABS, K: skfNet + t.offset},
			unix.SockFilter{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, Jf: rest, K: t.value},
		)
	}
	program = append(program, give(index))
	return append(program, otherwise...)
}

// attachClassic attaches a classic program to the reuseport group of the parking listener, in place
// of the previous program. It borrows the listener. Attaching fails on another member (see Lock).
func attachClassic(parking int, program []unix.SockFilter) error {
	code := unix.SockFprog{Len: uint16(len(program)), Filter: &program[0]}
	if err := unix.SetsockoptSockFprog(parking, unix.SOL_SOCKET, unix.SO_ATTACH_REUSEPORT_CBPF, &code); err != nil {
		return fmt.Errorf("attach classic program: setsockopt SO_ATTACH_REUSEPORT_CBPF: %w", err)
	}
	return nil
}
