package sockdiag

import (
	"encoding/binary"
	"fmt"

	"golang.org/x/sys/unix"
)

// The states that a dump is asked for, as bits (net/tcp_states.h).
//
// Open is what an instance may still have to serve: ESTABLISHED, and CLOSE_WAIT (the client has
// finished sending, the instance has not closed). An instance holds those until it closes them. The
// others are left out: in SYN_RECV there is no connection yet, only a half-open handshake without a
// cgroup, which can become a queued connection a round trip after its listener left the ring; in
// FIN_WAIT1, FIN_WAIT2, CLOSING, LAST_ACK and TIME_WAIT the instance has said its last byte, and
// the kernel delivers it even when the process is gone.
const (
	stateCloseWait = 8
	openStates     = 1<<1 | 1<<stateCloseWait
	listenState    = 1 << 10
)

// infoBit asks for attribute INET_DIAG_INFO (linux/inet_diag.h). The cgroup comes unasked.
const infoBit = 1 << (attrInfo - 1)

// Numbers of linux/inet_diag.h that golang.org/x/sys/unix lacks.
const (
	tcpdiagGetSock   = 18 // TCPDIAG_GETSOCK
	reqBytecode      = 1  // INET_DIAG_REQ_BYTECODE
	bcJump           = 1  // INET_DIAG_BC_JMP
	bcSourcePort     = 11 // INET_DIAG_BC_S_EQ
	bcCgroup         = 13 // INET_DIAG_BC_CGROUP_COND
	bcOp             = 4  // sizeof(struct inet_diag_bc_op)
	bcPort           = 2 * bcOp
	bcCgroupLen      = bcOp + 8
	requestStates    = 52 // offset of idiag_states in struct inet_diag_req
	requestLen       = 60 // sizeof(struct inet_diag_req)
	requestExtension = 3  // offset of idiag_ext
)

// dumpRequest builds a request for the sockets in states with one of the local ports, of one cgroup
// unless that is zero. ext is a set of bits as infoBit.
//
// It is the old request (TCPDIAG_GETSOCK), as ss(8) sends it, because it covers IPv4 and IPv6 in
// one walk of the table; SOCK_DIAG_BY_FAMILY takes one family a time and walks all of it for each.
func dumpRequest(states uint32, ext uint8, ports []uint16, cgroup uint64) ([]byte, error) {
	if err := checkPorts(ports); err != nil {
		return nil, err
	}
	code := bytecode(ports, cgroup)
	total := unix.SizeofNlMsghdr + requestLen + unix.SizeofNlAttr + len(code)
	b := make([]byte, unix.SizeofNlMsghdr+requestLen, total)
	binary.NativeEndian.PutUint32(b[0:], uint32(total))
	binary.NativeEndian.PutUint16(b[4:], tcpdiagGetSock)
	binary.NativeEndian.PutUint16(b[6:], unix.NLM_F_REQUEST|unix.NLM_F_DUMP)
	body := b[unix.SizeofNlMsghdr:]
	body[requestExtension] = ext
	binary.NativeEndian.PutUint32(body[requestStates:], states)
	b = binary.NativeEndian.AppendUint16(b, uint16(unix.SizeofNlAttr+len(code)))
	b = binary.NativeEndian.AppendUint16(b, reqBytecode)
	return append(b, code...), nil
}

func checkPorts(ports []uint16) error {
	if len(ports) < 1 || len(ports) > MaxPorts {
		return fmt.Errorf("filter ports: want 1 to %d, got %d", MaxPorts, len(ports))
	}
	for _, p := range ports {
		if p == 0 {
			return fmt.Errorf("filter ports: %d is not a port", p)
		}
	}
	return nil
}

func setSeq(req []byte, seq uint32) { binary.NativeEndian.PutUint32(req[8:], seq) }

// bytecode is the kernel's filter program (net/ipv4/inet_diag.c, inet_diag_bc_run): a chain of
// conditions, each with a forward jump for yes and one for no. Running off the end accepts, a jump
// to 4 bytes behind it refuses. A yes may only go to the next operation, so that "or" needs a jump
// of its own behind each port but the last:
//
//	[cgroup?]  port p1? no: next port    jump behind the last port    port p2? no: refuse
func bytecode(ports []uint16, cgroup uint64) []byte {
	var b []byte
	total := len(ports)*bcPort + (len(ports)-1)*bcOp
	if cgroup != 0 {
		total += bcCgroupLen
		b = appendOp(b, bcCgroup, bcCgroupLen, total+bcOp)
		b = binary.NativeEndian.AppendUint64(b, cgroup)
	}
	for i, port := range ports {
		left := total - len(b)
		last := i == len(ports)-1
		no := bcPort + bcOp
		if last {
			no = left + bcOp
		}
		b = appendOp(b, bcSourcePort, bcPort, no)
		b = appendOp(b, 0, 0, int(port))
		if !last {
			b = appendOp(b, bcJump, bcOp, total-len(b))
		}
	}
	return b
}

func appendOp(b []byte, code, yes uint8, no int) []byte {
	return binary.NativeEndian.AppendUint16(append(b, code, yes), uint16(no))
}
