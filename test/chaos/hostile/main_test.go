package main

import (
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
)

// The answer to half a request says which instance gave it.
func TestNamesItsRefusals(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	go http.Serve(lasting{l, "instance=2 pid=7"}, http.NotFoundHandler()) // ends with the listener
	c, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if _, err := io.WriteString(c, "GET / HT"); err != nil {
		t.Fatal(err)
	}
	if err := c.(*net.TCPConn).CloseWrite(); err != nil {
		t.Fatal(err)
	}
	said, err := io.ReadAll(c)
	if err != nil || !strings.HasPrefix(string(said), "HTTP/1.1 400 ") || !strings.HasSuffix(string(said), "\ninstance=2 pid=7") {
		t.Errorf("the answer is %q, %v", said, err)
	}
}
