package nodecluster

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// pair returns a channel that writes until the test ends, and the worker's end.
func pair(t *testing.T) (*Channel, *net.UnixConn) {
	t.Helper()
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	c, err := NewChannel(fds[0], 7)
	if err != nil {
		t.Fatal(err)
	}
	worker, err := Adopt(fds[1])
	if err != nil {
		t.Fatal(err)
	}
	if err := worker.SetDeadline(time.Now().Add(20 * time.Second)); err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	ctx, cancel := context.WithCancel(context.Background())
	var ended sync.WaitGroup
	ended.Go(func() { c.Write(done) }) // fails when the test has closed the connection
	ended.Go(func() { c.Carry(ctx) })
	t.Cleanup(func() {
		close(done)
		cancel()
		c.Close()
		ended.Wait()
		worker.Close()
	})
	return c, worker
}

func write(t *testing.T, worker *net.UnixConn, text string) {
	t.Helper()
	if _, err := worker.Write([]byte(text)); err != nil {
		t.Fatal(err)
	}
}

// read returns the next line and how many descriptors came with it.
func read(t *testing.T, worker *net.UnixConn) (line string, descriptors []int) {
	t.Helper()
	buf, oob := make([]byte, 4096), make([]byte, 128)
	n, oobn, _, _, err := worker.ReadMsgUnix(buf, oob)
	if err != nil {
		t.Fatal(err)
	}
	messages, err := unix.ParseSocketControlMessage(oob[:oobn])
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range messages {
		if descriptors, err = unix.ParseUnixRights(&m); err != nil {
			t.Fatal(err)
		}
	}
	return string(buf[:n]), descriptors
}

func TestReadSkipsWhatIsTheProgramsOwn(t *testing.T) {
	c, worker := pair(t)
	go func() { // overlong lines do not fit into the socket's buffer at once
		io.WriteString(worker, `"hello"`+"\n"+`{"type":"axm:monitor"}`+"\n"+`"`+strings.Repeat("x", 3*MaxLine)+"\"\n"+online+"\n"+ask[:20])
		io.WriteString(worker, ask[20:]+"\nnonsense\n"+leaving+"\n")
		worker.CloseWrite()
	}()
	var badLine *BadLineError
	for _, want := range []Kind{Online, Ask} {
		if m, err := c.Read(); err != nil || m.Kind != want {
			t.Errorf("read %+v, %v, want kind %d", m, err, want)
		}
	}
	if m, err := c.Read(); !errors.As(err, &badLine) {
		t.Errorf("read %+v, %v, want an error about the line", m, err)
	}
	if m, err := c.Read(); err != nil || m.Kind != Leaving {
		t.Errorf("read %+v, %v behind the bad line", m, err)
	}
	if m, err := c.Read(); err != io.EOF {
		t.Errorf("read %+v, %v, want the end", m, err)
	}
}

func TestReplies(t *testing.T) {
	c, worker := pair(t)
	m := Message{Seq: 0}
	for _, s := range []struct {
		reply Reply
		want  string
	}{
		{Refuse(m, unix.ENOTSUP, nil), `{"cmd":"NODE_CLUSTER","seq":7,"ack":0,"errno":-95,"data":null}`},
		{Acknowledge(m), `{"cmd":"NODE_CLUSTER","seq":8,"ack":0}`},
		{AckHandle(), `{"cmd":"NODE_HANDLE_ACK"}`},
		{Disconnect(), `{"cmd":"NODE_CLUSTER","seq":10,"act":"disconnect"}`},
		{LetGo(), `{"cmd":"NODE_UNITGEN","seq":11,"act":"drain"}`},
		{HoldOn(), `{"cmd":"NODE_UNITGEN","seq":12,"act":"serve"}`},
		{CloseWithin(1500 * time.Millisecond), `{"cmd":"NODE_UNITGEN","seq":13,"act":"close","milliseconds":1500}`},
		{CutWithin(time.Second), `{"cmd":"NODE_UNITGEN","seq":14,"act":"close","milliseconds":1000,"busy":true}`},
		{AskReport(9), `{"cmd":"NODE_UNITGEN","seq":15,"act":"report","token":9}`},
		{UseTickets([]byte{0, 255}), `{"cmd":"NODE_UNITGEN","seq":16,"act":"tickets","keys":"00ff"}`},
		{Shutdown(), `"shutdown"`},
	} {
		if !c.Send(s.reply) {
			t.Fatal("nobody sends")
		}
		if line, _ := read(t, worker); line != s.want+"\n" || !json.Valid([]byte(line)) {
			t.Errorf("worker got %s, want %s", line, s.want)
		}
	}
}

// A descriptor of the program's is closed. The worker keeps back everything until it is
// acknowledged.
func TestDescriptorOfTheProgramIsClosed(t *testing.T) {
	c, worker := pair(t)
	var p [2]int
	if err := unix.Pipe2(p[:], unix.O_CLOEXEC); err != nil {
		t.Fatal(err)
	}
	defer unix.Close(p[0])
	if _, _, err := worker.WriteMsgUnix([]byte(`{"cmd":"NODE_HANDLE","type":"net.Socket","msg":1}`+"\n"), unix.UnixRights(p[1]), nil); err != nil {
		t.Fatal(err)
	}
	unix.Close(p[1])
	write(t, worker, leaving+"\n")
	for _, want := range []Kind{HandleSent, Leaving} {
		if m, err := c.Read(); err != nil || m.Kind != want {
			t.Errorf("read %+v, %v, want kind %d", m, err, want)
		}
	}
	if n, err := unix.Read(p[0], make([]byte, 1)); n != 0 || err != nil {
		t.Errorf("the pipe's other end is still open somewhere: %d, %v", n, err)
	}
}

// What Hear's caller has no room for comes again, and nothing is lost or told twice.
func TestHearKeepsWhatIsNotTaken(t *testing.T) {
	c, worker := pair(t)
	write(t, worker, online+"\n"+ask+"\n"+leaving+"\n"+ask[:20])
	var got []Kind
	room := 0
	take := func(m Message, err error) bool {
		if room == 0 {
			return false
		}
		if err != nil {
			t.Error(err)
		}
		room--
		got = append(got, m.Kind)
		return true
	}
	for range 4 {
		if c.Hear(take) {
			t.Error("there is more")
		}
		room = 1
	}
	if want := []Kind{Online, Ask, Leaving}; !slices.Equal(got, want) {
		t.Errorf("heard %v, want %v", got, want)
	}
	write(t, worker, ask[20:]+"\n")
	room = 1
	c.Hear(take)
	if want := []Kind{Online, Ask, Leaving, Ask}; !slices.Equal(got, want) {
		t.Errorf("heard %v, want %v", got, want)
	}
}

// A worker that always has something to say is not heard for ever.
func TestHearComesToAnEnd(t *testing.T) {
	c, worker := pair(t)
	ended := make(chan error, 1)
	go func() {
		for {
			if _, err := worker.Write(bytes.Repeat([]byte(online+"\n"), 100)); err != nil {
				ended <- err
				return
			}
		}
	}()
	more := false
	for deadline := time.Now().Add(20 * time.Second); !more && time.Now().Before(deadline); {
		n := 0
		more = c.Hear(func(Message, error) bool { n++; return true })
		if limit := maxReads*chunk/len(online) + 1; n > limit {
			t.Fatalf("heard %d lines at once", n)
		}
	}
	if !more {
		t.Error("it always came to the end of what was there")
	}
	c.Close()
	<-ended
}

// A worker that does not read holds up nobody: orders never wait.
func TestOrderNeverWaits(t *testing.T) {
	c, _ := pair(t)
	refused := 0
	for range 100000 {
		if !c.Order(Disconnect()) {
			refused++
		}
	}
	if refused == 0 {
		t.Error("all orders were taken, though nobody reads")
	}
}

func TestGreeting(t *testing.T) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fds[1])
	conn, err := Adopt(fds[0])
	if err != nil {
		t.Fatal(err)
	}
	if err := Greet(conn, Greeting{Instance: 3}); err != nil {
		t.Fatal(err)
	}
	write(t, conn, ask+"\n")
	conn.Close()
	if g, err := AwaitGreeting(fds[1]); err != nil || g.Instance != 3 {
		t.Errorf("greeting is %+v, %v", g, err)
	}
	buf := make([]byte, 4096)
	if n, err := unix.Read(fds[1], buf); err != nil || string(buf[:n]) != ask+"\n" {
		t.Errorf("what is left for Node is %q, %v", buf[:n], err)
	}
	if _, err := AwaitGreeting(fds[1]); !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("at the end: %v", err)
	}
}
