//go:build integration

package integration

import (
	"bufio"
	"cmp"
	"encoding/json"
	"fmt"
	"net"
	"time"

	"github.com/unitgen/unitgen/internal/control"
	"github.com/unitgen/unitgen/internal/shim"
)

// controlPath is where the shim's control socket is.
func (a *testApp) controlPath() string {
	return cmp.Or(a.runtime, "/run") + "/unitgen/" + a.name + "/control"
}

// control connects to the app's control socket as root.
func (a *testApp) control() net.Conn {
	a.t.Helper()
	conn, err := a.dialControl()
	if err != nil {
		a.t.Fatal(err)
	}
	return conn
}

func (a *testApp) dialControl() (net.Conn, error) {
	conn, err := a.DialContext(a.t.Context(), "unix", a.controlPath())
	if err != nil {
		return nil, err
	}
	return conn, conn.SetDeadline(time.Now().Add(limit))
}

// status asks the shim on its control socket.
func (a *testApp) status() shim.Status {
	a.t.Helper()
	s, err := a.ask()
	if err != nil {
		a.t.Fatalf("ask shim for its status: %v", err)
	}
	return s
}

func (a *testApp) ask() (shim.Status, error) {
	conn, err := a.dialControl()
	if err != nil {
		return shim.Status{}, err
	}
	defer conn.Close()
	return callStatus(conn)
}

func callStatus(conn net.Conn) (shim.Status, error) {
	var status shim.Status
	if _, err := fmt.Fprintf(conn, "{%q:%q}\x00", "method", control.Interface+".Status"); err != nil {
		return status, err
	}
	message, err := bufio.NewReader(conn).ReadBytes(0)
	if err != nil {
		return status, err
	}
	var reply control.Reply
	if err := json.Unmarshal(message[:len(message)-1], &reply); err != nil {
		return status, err
	}
	if reply.Error != "" {
		return status, fmt.Errorf("%s: %s", reply.Error, reply.Parameters)
	}
	return status, json.Unmarshal(reply.Parameters, &status)
}

// awaitShim asks the shim again and again until ok says yes; meanwhile the shim may come and go.
func (a *testApp) awaitShim(what string, ok func(shim.Status) bool) {
	a.t.Helper()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	var last shim.Status
	var err error
	for deadline := time.Now().Add(limit); time.Now().Before(deadline); <-tick.C {
		if last, err = a.ask(); err == nil && ok(last) {
			return
		}
	}
	a.t.Fatalf("no %s, last: %+v, %v", what, last, err)
}

// awaitWaiting waits until n connections wait at the parking listeners.
func (a *testApp) awaitWaiting(n int) {
	a.t.Helper()
	a.awaitShim("waiting connections", func(s shim.Status) bool {
		waiting := 0
		for _, address := range s.Addresses {
			waiting += address.Waiting
		}
		return waiting == n
	})
}

// awaitConnections waits until n connections are open, none of them waiting to be accepted.
func (a *testApp) awaitConnections(n int) {
	a.t.Helper()
	a.awaitShim("end of connections", func(s shim.Status) bool {
		open := 0
		for _, in := range s.Instances {
			open += in.Connections + in.Queued
		}
		return open == n
	})
}
