package nodecluster

import (
	"encoding/json"
	"errors"
	"os"
	"strconv"

	"golang.org/x/sys/unix"
)

// Hand gives the worker a connection for the server of that key, and returns the number that an
// Answered will have. It never waits: the error is unix.EAGAIN if the channel is full. The
// descriptor must not block. The caller keeps it, for the case that the worker does not take the
// connection.
//
// The worker sends HandleAck when it has the descriptor, and Answered when a server has taken or
// refused the connection. HandleLost instead of both means that it could not receive the
// descriptor. It handles connections in the order in which they were given.
func (c *Channel) Hand(key []byte, fd int) (seq uint64, err error) {
	// Whoever writes may wait for the worker.
	if !c.writing.TryLock() {
		return 0, unix.EAGAIN
	}
	defer c.writing.Unlock()
	seq = c.seq.Add(1) - 1
	line := appendConnection(make([]byte, 0, 256), key, seq)
	n, err := c.send(line, fd)
	switch {
	case errors.Is(err, unix.EAGAIN), errors.Is(err, unix.ETOOMANYREFS): // or too many descriptors on their way, to whomever
		return 0, unix.EAGAIN
	case err != nil:
		return 0, os.NewSyscallError("sendmsg", err)
	case n < len(line):
		// Lines this short go as a whole or not at all (unix_stream_sendmsg in net/unix/af_unix.c).
		// The rest must not be missing in front of the next one.
		return 0, errors.Join(errors.New("send connection: half a line was sent"), c.Close())
	}
	return seq, nil
}

// appendConnection appends a newconn message. It is written by hand, as it is the only one for each
// connection. key is a string in JSON, as QuoteKey makes it.
func appendConnection(line, key []byte, seq uint64) []byte {
	line = append(line, `{"cmd":"NODE_HANDLE","type":"net.Native","msg":{"cmd":"NODE_CLUSTER","act":"newconn","key":`...)
	line = append(line, key...)
	line = append(line, `,"seq":`...)
	line = strconv.AppendUint(line, seq, 10)
	return append(line, "}}\n"...)
}

// QuoteKey makes what Hand wants of a server's key.
func QuoteKey(key string) []byte {
	text, err := json.Marshal(key)
	if err != nil {
		panic(err) // a string
	}
	return text
}
