package steer

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"
)

// ErrNotListening means that a socket does not listen, because one of its holders has shut it down.
var ErrNotListening = errors.New("socket does not listen")

// Queue returns how many connections wait in a listener's accept queue, and the queue's limit. It
// borrows fd, which may be any duplicate of the listener, and costs one system call.
//
// For a listening socket the kernel puts both in struct tcp_info: tcpi_unacked is sk_ack_backlog
// and tcpi_sacked is sk_max_ack_backlog (net/ipv4/tcp.c, tcp_get_info).
func Queue(fd int) (queued, backlog int, err error) {
	info, err := unix.GetsockoptTCPInfo(fd, unix.IPPROTO_TCP, unix.TCP_INFO)
	if err != nil {
		return 0, 0, fmt.Errorf("read accept queue: getsockopt TCP_INFO: %w", err)
	}
	if info.State != tcpListen {
		return 0, 0, fmt.Errorf("read accept queue: %w (TCP state %d)", ErrNotListening, info.State)
	}
	return int(info.Unacked), int(info.Sacked), nil
}

const tcpListen = 10 // TCP_LISTEN, include/net/tcp_states.h
