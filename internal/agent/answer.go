package agent

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"time"
)

// maxRequest bounds what is read of a request: those of load balancers have some 100 bytes.
const maxRequest = 4096

// serve answers one client and closes its connection.
func (s *Server) serve(ctx context.Context, c *client) {
	defer c.Close()
	stop := context.AfterFunc(ctx, func() { c.Close() })
	defer stop()
	began := time.Now()
	_ = c.SetWriteDeadline(began.Add(clientTime)) // a client that has left shows in the next read or write
	c.hears(began.Add(hello))
	r := bufio.NewReader(io.LimitReader(c, maxRequest))
	first, err := r.Peek(1)
	c.hears(began.Add(requestTime))
	switch {
	case errors.Is(err, os.ErrDeadlineExceeded), errors.Is(err, io.EOF): // it listens, or has said all it had to say
	case err != nil:
		return
	case s.speaksHTTP(r, first):
		req, err := http.ReadRequest(r)
		c.hasAsked()
		s.answerHTTP(ctx, c, req, err)
		return
	default: // agent-send, which may be any text
	}
	c.hasAsked()
	s.answerAgent(ctx, c)
}

// speaksHTTP says whether what came first is the beginning of a request: a method in capitals and a
// blank. It waits for no more than what tells the two apart.
func (s *Server) speaksHTTP(r *bufio.Reader, first []byte) bool {
	const longest = len("OPTIONS ")
	for n := len(first); n <= longest; n++ {
		word, err := r.Peek(n)
		if err != nil {
			return false
		}
		switch last := word[n-1]; {
		case last == ' ':
			return n > 1
		case last < 'A' || last > 'Z':
			return false
		}
	}
	return false
}

// answerAgent writes one line of the agent-check protocol. "ready" takes back an earlier "drain" or
// "maint". Where the state is not known nothing is said: HAProxy then keeps what it knows, and its
// health check judges.
func (s *Server) answerAgent(ctx context.Context, w io.Writer) {
	if line := Line(s.state(ctx)); line != "" {
		_, _ = io.WriteString(w, line) // a client that has left
	}
}

// Line is state as a line of HAProxy's agent-check protocol; empty if there is nothing to say.
func Line(state State) string {
	switch state.State {
	case Up:
		return fmt.Sprintf("ready up %d%%\n", max(1, min(state.Weight, 100)))
	case Drain, Maint, Down:
		return state.State + "\n"
	}
	return ""
}

// answerHTTP answers one request, or err, which is why it cannot be read: 200 if the host shall get
// connections, else 503, with the state as JSON.
func (s *Server) answerHTTP(ctx context.Context, w io.Writer, req *http.Request, err error) {
	if err != nil {
		respond(w, http.StatusBadRequest, "", nil)
		return
	}
	if req.Method != http.MethodGet && req.Method != http.MethodHead {
		respond(w, http.StatusMethodNotAllowed, "Allow: GET, HEAD\r\n", nil)
		return
	}
	state := s.state(ctx)
	body, err := json.Marshal(state)
	if err != nil {
		panic(err) // a struct of strings and numbers always encodes
	}
	status := http.StatusServiceUnavailable
	if state.State == Up {
		status = http.StatusOK
	}
	header := fmt.Sprintf("Content-Type: application/json\r\nCache-Control: no-store\r\nContent-Length: %d\r\n", len(body)+1)
	if req.Method == http.MethodHead {
		respond(w, status, header, nil)
		return
	}
	respond(w, status, header, append(body, '\n'))
}

// respond writes an answer after which the connection ends. header has whole lines, with
// Content-Length for a body.
func respond(w io.Writer, status int, header string, body []byte) {
	if header == "" || body == nil && status == http.StatusMethodNotAllowed {
		header += "Content-Length: 0\r\n"
	}
	// One write, so that a client which reads once has it all. One that has left is no failure.
	_, _ = w.Write(append(fmt.Appendf(nil, "HTTP/1.1 %d %s\r\n%sConnection: close\r\n\r\n", status, http.StatusText(status), header), body...))
}
