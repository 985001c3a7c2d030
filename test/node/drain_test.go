//go:build integration

package node

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/unitgen/unitgen/internal/needs"
	"github.com/unitgen/unitgen/test/rig"
)

// TestDrainScript has drain.cjs end connections in the moment in which a request comes, which no
// load meets twice. The test is the balancer, so it needs no systemd.
func TestDrainScript(t *testing.T) {
	installed, err := rig.Programs()
	if err != nil {
		needs.Missing(t, "%v", err)
	}
	for _, version := range []string{"18", "20", "22", "24"} {
		node := filepath.Join(installed, "node_modules", "node"+version, "bin/node")
		t.Run("v"+version+"/Session", func(t *testing.T) { testSessionEnds(t, node) })
		t.Run("v"+version+"/UnusedSession", func(t *testing.T) { testUnusedSessionEnds(t, node) })
		t.Run("v"+version+"/Kept", func(t *testing.T) { testKeptEnds(t, node) })
	}
}

// process is a Node.js server with drain.cjs, and the balancer's end of its channel.
type process struct {
	*exec.Cmd
	t       *testing.T
	channel *os.File
	said    *bufio.Reader
	addr    string
}

// server answers each request when it has come to its end.
const server = `
const server = require('MODULE').createServer((request, response) => {
  request.resume().on('end', () => response.end('answered'));
});
server.listen(0, '127.0.0.1', () => console.log('127.0.0.1:' + server.address().port));`

// startServer starts a server of module http or http2.
func startServer(t *testing.T, node, module string) *process {
	t.Helper()
	script, err := filepath.Abs(filepath.Join("..", "..", "packaging/node/drain.cjs"))
	if err != nil {
		t.Fatal(err)
	}
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	theirs := os.NewFile(uintptr(fds[1]), "their channel")
	defer theirs.Close()
	p := &process{t: t, channel: os.NewFile(uintptr(fds[0]), "channel")}
	t.Cleanup(func() { p.channel.Close() })
	p.said = bufio.NewReader(p.channel)
	p.Cmd = exec.CommandContext(t.Context(), node, "--require", script, "--eval", strings.ReplaceAll(server, "MODULE", module))
	p.Env = []string{"NODE_CHANNEL_FD=3", "NODE_CHANNEL_SERIALIZATION_MODE=json"}
	p.ExtraFiles = []*os.File{theirs}
	p.Stderr = os.Stderr
	out, err := p.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := p.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		p.Process.Kill()
		p.Wait()
	})
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		t.Fatal(err)
	}
	p.addr = strings.TrimSpace(line)
	return p
}

// tell sends what the balancer sends.
func (p *process) tell(message string) {
	p.t.Helper()
	if _, err := fmt.Fprintf(p.channel, `{"cmd":"NODE_UNITGEN",%s}`+"\n", message); err != nil {
		p.t.Fatal(err)
	}
}

// drain tells the process to drain, and returns when it has heard.
func (p *process) drain() {
	p.t.Helper()
	p.tell(`"act":"drain"`)
	p.tell(`"act":"report","token":1`)
	for {
		line, err := p.said.ReadString('\n')
		if err != nil {
			p.t.Fatal(err)
		}
		if strings.Contains(line, `"token":1`) {
			return
		}
	}
}

func (p *process) connect() net.Conn {
	p.t.Helper()
	conn, err := net.Dial("tcp", p.addr)
	if err != nil {
		p.t.Fatal(err)
	}
	p.t.Cleanup(func() { conn.Close() })
	conn.SetDeadline(time.Now().Add(5 * time.Second))
	return conn
}

// freeze stops the process.
func (p *process) freeze() {
	p.t.Helper()
	if err := p.Process.Signal(unix.SIGSTOP); err != nil {
		p.t.Fatal(err)
	}
	// WNOWAIT leaves the state to Wait.
	if err := unix.Waitid(unix.P_PID, p.Process.Pid, nil, unix.WSTOPPED|unix.WNOWAIT, nil); err != nil {
		p.t.Fatal(err)
	}
}

// A request of HTTP/1 that has come to a process which is held up is answered, though the message
// to close the connection came before it.
func testKeptEnds(t *testing.T, node string) {
	p := startServer(t, node, "http")
	var clients []*slowRequest
	for range 16 { // whether the loop reads the channel first is up to the kernel
		conn := p.connect()
		clients = append(clients, &slowRequest{conn, bufio.NewReader(conn)})
	}
	ask := func() {
		t.Helper()
		for _, c := range clients {
			if _, err := io.WriteString(c, "POST / HTTP/1.1\r\nHost: test\r\nContent-Length: 0\r\n\r\n"); err != nil {
				t.Fatal(err)
			}
		}
	}
	answered := func() {
		t.Helper()
		for i, c := range clients {
			if status, err := c.answer(); err != nil || status != http.StatusOK {
				t.Fatalf("client %d was answered with %d, %v", i, status, err)
			}
		}
	}
	ask()
	answered()
	p.freeze()
	p.tell(`"act":"drain"`)
	p.tell(`"act":"close","milliseconds":1`)
	ask()
	if err := p.Process.Signal(unix.SIGCONT); err != nil {
		t.Fatal(err)
	}
	answered()
	for i, c := range clients {
		if _, err := c.read.ReadByte(); err != io.EOF {
			t.Errorf("after the last answer client %d sees %v, want %v", i, err, io.EOF)
		}
	}
}

// Frames of HTTP/2, RFC 9113 section 6.
const (
	frameData, frameHeaders, frameSettings, framePing, frameGoAway = 0, 1, 4, 6, 7

	flagAck, flagEndStream, flagEndHeaders = 1, 1, 4
)

type frame struct {
	kind, flags byte
	stream      uint32
	payload     []byte
}

func (f frame) bytes() []byte {
	head := binary.BigEndian.AppendUint32(nil, uint32(len(f.payload)))[1:]
	head = append(head, f.kind, f.flags)
	return append(binary.BigEndian.AppendUint32(head, f.stream), f.payload...)
}

func readFrame(r io.Reader) (f frame, err error) {
	var head [9]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return f, err
	}
	f = frame{head[3], head[4], binary.BigEndian.Uint32(head[5:]), make([]byte, int(head[0])<<16|int(head[1])<<8|int(head[2]))}
	_, err = io.ReadFull(r, f.payload)
	return f, err
}

// request is a request of stream 1 (the static table of RFC 7541 appendix A has the indices).
func request(flags byte) []byte {
	return frame{frameHeaders, flags | flagEndHeaders, 1, []byte{0x80 | 2, 0x80 | 6, 0x80 | 4, 0x40 | 1, 4, 't', 'e', 's', 't'}}.bytes()
}

// session is a client of HTTP/2 that says no more than it must.
type session struct {
	net.Conn
	t *testing.T
}

// openSession returns when the server knows the session.
func (p *process) openSession() *session {
	p.t.Helper()
	s := &session{Conn: p.connect(), t: p.t}
	s.send([]byte("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"), frame{kind: frameSettings}.bytes())
	for acknowledged := false; !acknowledged; {
		f, err := readFrame(s)
		if err != nil || f.kind != frameSettings {
			p.t.Fatalf("server began with %+v, %v", f, err)
		}
		acknowledged = f.flags&flagAck != 0
	}
	s.send(frame{kind: frameSettings, flags: flagAck}.bytes())
	return s
}

// send sends all in one segment.
func (s *session) send(frames ...[]byte) {
	s.t.Helper()
	if _, err := s.Write(bytes.Join(frames, nil)); err != nil {
		s.t.Fatal(err)
	}
}

// expectAnswer reads until the server ends the session, which it must do in order after it has
// answered stream 1. The client sends rest when it is told to go, in one segment with its answer if
// it is asked for one.
func (s *session) expectAnswer(rest []byte) {
	s.t.Helper()
	body, ended := "", false
	var last uint32 // stream of the last GOAWAY
	for {
		f, err := readFrame(s)
		if err != nil {
			if err != io.EOF || last != 1 || body != "answered" || !ended {
				s.t.Errorf("session ended with %v and GOAWAY of stream %d, the answer was %q and it ended: %v", err, last, body, ended)
			}
			return
		}
		switch {
		case f.kind == frameGoAway:
			last = binary.BigEndian.Uint32(f.payload)
			s.send(rest)
			rest = nil
		case f.kind == framePing && f.flags&flagAck == 0:
			s.send(rest, frame{framePing, flagAck, 0, f.payload}.bytes())
			rest = nil
		case f.kind == frameData:
			body, ended = body+string(f.payload), f.flags&flagEndStream != 0
		}
	}
}

// A request of HTTP/2 that is under way when its instance begins to drain is answered to its end.
func testSessionEnds(t *testing.T, node string) {
	p := startServer(t, node, "http2")
	s := p.openSession()
	s.send(request(0))
	p.drain()
	s.expectAnswer(frame{frameData, flagEndStream, 1, nil}.bytes())
}

// A request of HTTP/2 that is on its way when its instance begins to drain is answered, though it
// is the only one.
func testUnusedSessionEnds(t *testing.T, node string) {
	p := startServer(t, node, "http2")
	s := p.openSession()
	p.drain()
	s.send(request(flagEndStream))
	s.expectAnswer(nil)
}
