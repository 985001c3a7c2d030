//go:build integration

package integration

import (
	"net"
	"time"

	"github.com/unitgen/unitgen/internal/control"
	"github.com/unitgen/unitgen/test/apps"
)

// control connects to the app's control socket as root.
func (a *testApp) control() net.Conn {
	a.T.Helper()
	conn, err := a.DialControl()
	if err != nil {
		a.T.Fatal(err)
	}
	return conn
}

// awaitShim asks the shim again and again until ok says yes; meanwhile the shim may come and go.
func (a *testApp) awaitShim(what string, ok func(control.Status) bool) {
	a.T.Helper()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	var last control.Status
	var err error
	for deadline := time.Now().Add(apps.Limit); time.Now().Before(deadline); <-tick.C {
		if last, err = a.AskStatus(); err == nil && ok(last) {
			return
		}
	}
	a.T.Fatalf("no %s, last: %+v, %v", what, last, err)
}

// awaitWaiting waits until n connections wait at the parking listeners.
func (a *testApp) awaitWaiting(n int) {
	a.T.Helper()
	a.awaitShim("waiting connections", func(s control.Status) bool {
		waiting := 0
		for _, address := range s.Addresses {
			waiting += address.Waiting
		}
		return waiting == n
	})
}

// awaitConnections waits until n connections are open, none of them waiting to be accepted.
func (a *testApp) awaitConnections(n int) {
	a.T.Helper()
	a.awaitShim("end of connections", func(s control.Status) bool {
		open := 0
		for _, in := range s.Instances {
			open += in.Connections + in.Queued
		}
		return open == n
	})
}
