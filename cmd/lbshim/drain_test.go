package main

import (
	"context"
	"net"
	"net/http"
	"os"
	"strconv"
	"testing"

	"github.com/unitgen/unitgen/activation"
)

// A program says itself that activation.Serve runs in it, for as long as that does.
func TestServeSaysThatItRuns(t *testing.T) {
	self := strconv.Itoa(os.Getpid())
	if holdsMark(self) {
		t.Error("a process without Serve has its mark")
	}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	done := make(chan error, 1)
	asked := false
	handler := http.HandlerFunc(func(http.ResponseWriter, *http.Request) { asked = holdsMark(self) })
	go func() {
		done <- activation.Serve(ctx, &http.Server{Handler: handler}, []net.Listener{ln}, activation.ServeOptions{Grace: -1})
	}()
	answer, err := http.Get("http://" + ln.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	answer.Body.Close()
	stop()
	if err := <-done; err != nil {
		t.Error(err)
	}
	if !asked {
		t.Error("a process with Serve has no mark")
	}
	if holdsMark(self) {
		t.Error("the mark is left after Serve")
	}
	if holdsMark("4194305") {
		t.Error("a process that does not exist has a mark")
	}
}
