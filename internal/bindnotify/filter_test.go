package bindnotify

import (
	"encoding/binary"
	"testing"

	"golang.org/x/sys/unix"
)

// armCalls are the numbers of unistd.h for arm64, which has the generic ones.
var armCalls = calls{bind: 200, listen: 201, setsockopt: 208, seccomp: 277, ioUringSetup: 425}

// run is the part of the kernel's classic BPF that the filter uses.
func run(t *testing.T, program []unix.SockFilter, data []byte) uint32 {
	t.Helper()
	var a uint32
	for pc := 0; pc < len(program); pc++ {
		in := program[pc]
		jump := func(truth bool) {
			if truth {
				pc += int(in.Jt)
			} else {
				pc += int(in.Jf)
			}
		}
		switch in.Code {
		case unix.BPF_LD | unix.BPF_W | unix.BPF_ABS:
			a = binary.LittleEndian.Uint32(data[in.K:])
		case unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K:
			jump(a == in.K)
		case unix.BPF_JMP | unix.BPF_JGE | unix.BPF_K:
			jump(a >= in.K)
		case unix.BPF_JMP | unix.BPF_JSET | unix.BPF_K:
			jump(a&in.K != 0)
		case unix.BPF_RET | unix.BPF_K:
			return in.K
		default:
			t.Fatalf("instruction %d has code %#x", pc, in.Code)
		}
	}
	t.Fatal("the program does not end")
	return 0
}

func TestFilterAsksAboutWhatMatters(t *testing.T) {
	amd := calls{bind: 49, listen: 50, setsockopt: 54, seccomp: 317, ioUringSetup: 425}
	for _, arch := range []struct {
		name         string
		architecture uint32
		calls        calls
	}{
		{"amd64", architectures["amd64"], amd},
		{"arm64", architectures["arm64"], armCalls},
	} {
		program := filter(arch.architecture, arch.calls)
		c := arch.calls
		for _, call := range []struct {
			name      string
			number    uint32
			arguments [6]uint64
			asks      bool
		}{
			{"bind IPv4", c.bind, [6]uint64{3, 0x7fff12345678, 16}, true},
			{"bind IPv6", c.bind, [6]uint64{3, 0x7fff12345678, 28}, true},
			{"bind netlink", c.bind, [6]uint64{3, 0x7fff12345678, 12}, false},
			{"listen", c.listen, [6]uint64{3, 5}, true},
			{"setsockopt nodelay", c.setsockopt, [6]uint64{3, unix.IPPROTO_TCP, unix.TCP_NODELAY}, false},
			{"setsockopt TCP's 51", c.setsockopt, [6]uint64{3, unix.IPPROTO_TCP, unix.SO_ATTACH_REUSEPORT_CBPF}, false},
			{"setsockopt reuseport", c.setsockopt, [6]uint64{3, unix.SOL_SOCKET, unix.SO_REUSEPORT}, false},
			{"attach classic", c.setsockopt, [6]uint64{3, unix.SOL_SOCKET, unix.SO_ATTACH_REUSEPORT_CBPF}, true},
			{"attach", c.setsockopt, [6]uint64{3, unix.SOL_SOCKET, unix.SO_ATTACH_REUSEPORT_EBPF}, true},
			{"detach", c.setsockopt, [6]uint64{3, unix.SOL_SOCKET, unix.SO_DETACH_REUSEPORT_BPF}, true},
			{"filter", c.seccomp, [6]uint64{unix.SECCOMP_SET_MODE_FILTER, 0}, false},
			{"filter with listener", c.seccomp, [6]uint64{unix.SECCOMP_SET_MODE_FILTER, unix.SECCOMP_FILTER_FLAG_NEW_LISTENER | 1}, true},
			{"strict mode", c.seccomp, [6]uint64{unix.SECCOMP_SET_MODE_STRICT, 8}, false},
			{"io_uring_setup", c.ioUringSetup, [6]uint64{}, true},
			{"accept4", c.listen + 1000, [6]uint64{}, false},
			{"read", 0, [6]uint64{}, false},
		} {
			for _, other := range []bool{false, true} {
				data := binary.LittleEndian.AppendUint32(nil, call.number)
				data = binary.LittleEndian.AppendUint32(data, arch.architecture^map[bool]uint32{true: 1 << 31}[other])
				data = binary.LittleEndian.AppendUint64(data, 0)
				for _, a := range call.arguments {
					data = binary.LittleEndian.AppendUint64(data, a)
				}
				want := uint32(unix.SECCOMP_RET_ALLOW)
				if call.asks && !other {
					want = unix.SECCOMP_RET_USER_NOTIF
				}
				if got := run(t, program, data); got != want {
					t.Errorf("%s, %s, another architecture %t: %#x, want %#x", arch.name, call.name, other, got, want)
				}
			}
		}
	}
}
