package nodecluster

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"time"

	"golang.org/x/sys/unix"
)

// Greeting is the first line on a channel, from the primary to the launcher that has connected and
// will become Node: it says that all is ready, or why not. What follows is Node's protocol.
type Greeting struct {
	Instance int    `json:"instance,omitempty"`
	Error    string `json:"error,omitempty"`
}

// maxGreeting is more than any greeting has.
const maxGreeting = 4096

// greetLimit bounds the sending of a greeting, which is the first thing in an empty socket.
const greetLimit = 5 * time.Second

// Greet sends a greeting.
func Greet(conn *net.UnixConn, g Greeting) error {
	line, err := json.Marshal(g)
	if err != nil {
		return err
	}
	if err := conn.SetWriteDeadline(time.Now().Add(greetLimit)); err != nil {
		return err
	}
	if _, err := conn.Write(append(line, '\n')); err != nil {
		return fmt.Errorf("greet worker: %w", err)
	}
	return nil
}

// AwaitGreeting reads the greeting from a blocking socket, one byte at a time: what follows it is
// for Node to read. A receive time-out of the socket's (SO_RCVTIMEO) bounds each read. A primary
// that hangs up before it has greeted, as it died, gives io.ErrUnexpectedEOF.
func AwaitGreeting(fd int) (Greeting, error) {
	var g Greeting
	var line bytes.Buffer
	var b [1]byte
	for line.Len() < maxGreeting {
		n, err := unix.Read(fd, b[:])
		switch {
		case errors.Is(err, unix.EINTR):
			continue
		case errors.Is(err, unix.EAGAIN):
			return g, errors.New("read greeting: the balancer does not answer")
		case err == nil && n == 0:
			return g, fmt.Errorf("read greeting: %w", io.ErrUnexpectedEOF)
		case err != nil:
			return g, fmt.Errorf("read greeting: %w", err)
		}
		if b[0] == '\n' {
			if err := json.Unmarshal(line.Bytes(), &g); err != nil {
				return g, fmt.Errorf("parse greeting: %w", err)
			}
			return g, nil
		}
		line.WriteByte(b[0])
	}
	return g, fmt.Errorf("read greeting: over %d bytes", maxGreeting)
}
