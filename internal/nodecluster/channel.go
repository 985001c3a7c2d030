package nodecluster

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

// MaxLine is the longest line that is looked at. Longer ones are read and thrown away: only messages of the program's
// own can be longer.
const MaxLine = 64 << 10

// sendLimit bounds the sending of one line, whatever the worker does. A worker that is stopped has room for some hundred
// lines in its socket; one that does not read for this long while that is full has itself to blame.
const sendLimit = 30 * time.Second

// queued is how many replies wait to be sent; then the worker's messages are read no further.
const queued = 8

// Channel moves lines and descriptors between the primary and one worker. Read is for one goroutine, Send for others
// beside it; Order and Post for any. A Channel owns its connection.
type Channel struct {
	conn   *net.UnixConn
	buf    []byte
	skip   bool // the rest of an overlong line follows
	out    chan Reply
	orders chan Reply
	ended  chan struct{} // closed by Write at its end
	seq    atomic.Uint64

	writing sync.Mutex // a line is being written
	letters letters
}

// NewChannel makes a channel on conn and owns it from then on. firstSeq is the number of the first message to the
// worker: a primary that takes over counts on beyond what the one before it may have used, so that a late answer to
// that one is not taken for its own.
func NewChannel(conn *net.UnixConn, firstSeq uint64) *Channel {
	c := &Channel{
		conn: conn, out: make(chan Reply, queued), orders: make(chan Reply, maxOrders), ended: make(chan struct{}),
		letters: letters{queue: make(chan Letter, maxLetters)},
	}
	c.seq.Store(firstSeq)
	return c
}

// Adopt makes the connection of a channel of a descriptor, which it takes over.
func Adopt(fd int) (*net.UnixConn, error) {
	file := os.NewFile(uintptr(fd), "channel")
	defer file.Close()
	conn, err := net.FileConn(file)
	if err != nil {
		return nil, fmt.Errorf("adopt channel: %w", err)
	}
	c, ok := conn.(*net.UnixConn)
	if !ok {
		conn.Close()
		return nil, errors.New("adopt channel: not a unix socket")
	}
	return c, nil
}

// Close ends the channel here; Read and Write return. The worker sees its end when the last duplicate is closed.
func (c *Channel) Close() error { return c.conn.Close() }

// Read returns the next line that is for the primary, and answers a descriptor of the program's by itself. Other lines of
// the program's are skipped. The error is io.EOF when the worker has closed the channel. A line that is none
// of Node's is an error too; the channel may be read on behind it.
func (c *Channel) Read() (Message, error) {
	for {
		line, err := c.line()
		if err != nil {
			return Message{}, err
		}
		m, err := Parse(line)
		if err != nil {
			return Message{}, &BadLineError{err}
		}
		switch m.Kind {
		case User, Unknown:
			continue
		case HandleSent:
			if !c.Send(AckHandle()) {
				return Message{}, net.ErrClosed
			}
			continue
		}
		return m, nil
	}
}

// BadLineError is a line that is not of the protocol.
type BadLineError struct{ err error }

func (b *BadLineError) Error() string { return b.err.Error() }
func (b *BadLineError) Unwrap() error { return b.err }

// line returns the next line of at most MaxLine bytes; it is valid until the next call.
func (c *Channel) line() ([]byte, error) {
	for {
		if i := bytes.IndexByte(c.buf, '\n'); i >= 0 {
			line, skip := c.buf[:i], c.skip
			c.buf, c.skip = c.buf[i+1:], false
			if !skip {
				return line, nil
			}
			continue
		}
		if len(c.buf) > MaxLine {
			c.buf, c.skip = nil, true
		}
		if err := c.fill(); err != nil {
			return nil, err
		}
	}
}

// fill reads what is there. Descriptors that come along are closed: nothing is made of them here.
func (c *Channel) fill() error {
	var chunk [4096]byte
	oob := make([]byte, unix.CmsgSpace(4*8))
	n, oobn, _, _, err := c.conn.ReadMsgUnix(chunk[:], oob)
	if oobn > 0 {
		closeRights(oob[:oobn])
	}
	if err != nil {
		// net wraps the end of a stream here; a reset is a worker that died with something unread.
		if errors.Is(err, io.EOF) || errors.Is(err, unix.ECONNRESET) {
			return io.EOF
		}
		return err
	}
	if n == 0 {
		return io.EOF
	}
	c.buf = append(c.buf, chunk[:n]...)
	return nil
}

func closeRights(oob []byte) {
	messages, err := unix.ParseSocketControlMessage(oob)
	if err != nil {
		return // the kernel wrote it
	}
	for _, m := range messages {
		fds, err := unix.ParseUnixRights(&m)
		if err != nil {
			continue // not descriptors
		}
		for _, fd := range fds {
			unix.Close(fd)
		}
	}
}

// Send hands a reply to Write and waits while too many others do; false if Write has ended. The descriptor that goes
// with it is taken over either way.
func (c *Channel) Send(r Reply) bool {
	select {
	case c.out <- r:
		return true
	case <-c.ended:
		r.drop()
		return false
	}
}

// maxOrders is how many orders wait to be sent. Each drain gives one or two, and one that was given up another.
const maxOrders = 8

// Order hands a message to Write that answers nothing, Disconnect or LetGo, and never waits; false if there is no room.
func (c *Channel) Order(r Reply) bool {
	select {
	case c.orders <- r:
		return true
	default:
		return false
	}
}

// Write sends what Send and Order hand it until done is closed or sending fails. Whoever runs it waits for its end.
func (c *Channel) Write(done <-chan struct{}) error {
	defer close(c.ended)
	for {
		var r Reply
		select {
		case r = <-c.orders:
		case r = <-c.out:
		case <-done:
			return nil
		}
		err := c.send(r)
		r.drop()
		if err != nil {
			return fmt.Errorf("send to worker: %w", err)
		}
	}
}

// Discard closes the descriptors of replies that were not sent. It is for when nobody calls Send or Write any more.
func (c *Channel) Discard() {
	for {
		select {
		case r := <-c.out:
			r.drop()
		default:
			return
		}
	}
}

func (r Reply) drop() {
	if r.fd >= 0 {
		unix.Close(r.fd)
	}
}

// send writes one line in one sendmsg, with one descriptor at most: Node takes a descriptor for that of the line whose
// first byte it came with.
func (c *Channel) send(r Reply) error {
	line, err := json.Marshal(r.build(c.seq.Add(1) - 1))
	if err != nil {
		return err
	}
	return c.write(append(line, '\n'), r.fd)
}

// write sends a line as a whole, with a descriptor unless fd is negative.
func (c *Channel) write(line []byte, fd int) error {
	c.writing.Lock()
	defer c.writing.Unlock()
	if err := c.conn.SetWriteDeadline(time.Now().Add(sendLimit)); err != nil {
		return err
	}
	defer c.conn.SetWriteDeadline(time.Time{}) // Hand has none; it fails only once the connection is closed
	var oob []byte
	if fd >= 0 {
		oob = unix.UnixRights(fd)
	}
	n, _, err := c.conn.WriteMsgUnix(line, oob, nil)
	if err == nil && n < len(line) {
		_, err = c.conn.Write(line[n:])
	}
	return err
}
