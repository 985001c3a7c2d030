package main

import (
	"errors"
	"net"
	"os"
	"slices"
	"strings"
	"testing"
	"time"
)

// The plan of a seed is part of what a failure prints: this one must be drawn by every later
// version of the table too, or rather, whoever changes the table sees here that old seeds mean
// something else from then on.
func TestDrawIsTheSameEachTime(t *testing.T) {
	apps := []string{"a", "b"}
	for n := range 200 {
		first, second := draw(7, n, apps), draw(7, n, apps)
		if first.String() != second.String() {
			t.Errorf("step %d is %q and %q", n, first, second)
		}
	}
	if draw(7, 1, apps).String() == draw(8, 1, apps).String() {
		t.Error("two seeds have the same first step")
	}
}

func TestEveryFaultIsDrawn(t *testing.T) {
	drawn := map[string]bool{}
	for n := range 500 {
		for _, a := range draw(1, n, []string{"a"}).acts {
			drawn[a.fault.name] = true
			if (a.app == "") != (a.fault.hits == theMachine) {
				t.Errorf("%s hits %q", a, a.app)
			}
		}
	}
	for _, f := range faults {
		if !drawn[f.name] {
			t.Errorf("%s is not among 500 steps", f.name)
		}
		for _, name := range f.spoils {
			if !slices.ContainsFunc(faults, func(f fault) bool { return f.name == name }) {
				t.Errorf("%s spoils %q, which is no fault", f.name, name)
			}
		}
	}
}

func TestWithoutKeepsTheRest(t *testing.T) {
	for n := range 100 {
		s := draw(7, n, []string{"a", "b"})
		left := s.without(map[string]bool{"kill-shim": true, "b": true})
		for _, a := range s.acts {
			gone := a.fault.name == "kill-shim" || a.app == "b"
			if slices.Contains(left.acts, a) == gone {
				t.Errorf("%q without kill-shim and b is %q", s, left)
			}
		}
	}
	if _, err := parseNames("kill-shimm"); err == nil || !strings.Contains(err.Error(), "kill-shimm") {
		t.Errorf("a name that is none: %v", err)
	}
}

func TestSpoiled(t *testing.T) {
	row := func(name string) *fault {
		return &faults[slices.IndexFunc(faults, func(f fault) bool { return f.name == name })]
	}
	reload, kill, full := act{fault: row("reload"), app: "a"}, act{fault: row("kill-shim"), app: "a"}, act{fault: row("full-disk")}
	elsewhere := act{fault: row("kill-shim"), app: "b"}
	for _, tt := range []struct {
		acts []act
		want bool
	}{
		{[]act{reload}, false},
		{[]act{reload, elsewhere}, false},
		{[]act{reload, kill}, true},
		{[]act{reload, full}, true},
	} {
		if got := (step{acts: tt.acts}).spoiled(reload); got != tt.want {
			t.Errorf("reload in %s is spoiled: %t", step{acts: tt.acts}, got)
		}
	}
}

// A failure is lost unless the very connection was accepted by an instance that was killed while it
// waited.
func TestLedger(t *testing.T) {
	at := time.Now()
	l := newLedger()
	l.kill(kill{app: "a", at: at, ports: map[int]bool{1000: true}})
	for _, tt := range []struct {
		name string
		f    failure
		lost bool
	}{
		{"at the killed one", failure{app: "a", port: 1000, began: at.Add(-1), ended: at.Add(1)}, false},
		{"at another", failure{app: "a", port: 1001, began: at.Add(-1), ended: at.Add(1)}, true},
		{"of another app", failure{app: "b", port: 1000, began: at.Add(-1), ended: at.Add(1)}, true},
		{"before", failure{app: "a", port: 1000, began: at.Add(-2), ended: at.Add(-1)}, true},
		{"after", failure{app: "a", port: 1000, began: at.Add(1), ended: at.Add(2)}, true},
	} {
		before := len(l.lost())
		tt.f.err = errors.New(tt.name)
		l.fail(tt.f)
		if lost := len(l.lost()) > before; lost != tt.lost {
			t.Errorf("%s: lost = %t", tt.name, lost)
		}
	}
	if l.mayRefuse("a", at) {
		t.Error("an app that was not stopped may refuse")
	}
	_, opened := l.close("a", false)
	began := time.Now()
	if !l.mayRefuse("a", began) || l.mayRefuse("b", began) {
		t.Error("a stopped app may refuse, and no other")
	}
	if l.mayCut("a", began) {
		t.Error("a stop that nothing cancels may reset connections")
	}
	l.close("a", true)
	if !l.mayCut("a", began) || l.mayCut("b", began) {
		t.Error("a stop that may be cancelled may reset connections of its app, and of no other")
	}
	opened()
	if !l.mayRefuse("a", time.Now()) {
		t.Error("of two stops one has ended: the app may refuse")
	}
	l.open("a")
	if l.mayRefuse("a", time.Now()) || l.mayCut("a", time.Now()) {
		t.Error("an app that was started again may refuse")
	}
}

// A stop that meets an app which is starting may cut off what was asked since that start began, and
// neither what the app had to answer before nor what it is asked when it is started again.
func TestStopThatMeetsAStart(t *testing.T) {
	at := func(seconds int) time.Time { return time.Unix(int64(seconds), 0) }
	first := window{from: at(10), started: at(20)}
	second := window{from: at(30), started: at(40)}
	for began, cut := range map[int]bool{5: false, 15: false, 25: true, 35: true, 45: false} {
		l := newLedger()
		l.shut["a"] = []window{first, second}
		if l.mayCut("a", at(began)) != cut || l.mayCut("b", at(began)) {
			t.Errorf("a request of second %d: may be cut off %t, want %t", began, !cut, cut)
		}
	}
	up := first
	up.to = at(24)
	l := newLedger()
	l.shut["a"] = []window{up, second}
	if l.mayCut("a", at(25)) {
		t.Error("an app that was up when it was asked may reset a connection in its stop")
	}
}

// The connections of a process are those that it has accepted, not those that wait at its listener.
func TestClients(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	var ports []int
	for range 2 {
		conn, err := net.Dial("tcp", l.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		ports = append(ports, conn.LocalAddr().(*net.TCPAddr).Port)
	}
	accepted, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer accepted.Close()
	p, err := openProcess(os.Getpid())
	if err != nil || p == nil {
		t.Fatal(p, err)
	}
	defer p.close()
	clients, err := p.clients()
	if err != nil || !clients[ports[0]] || clients[ports[1]] {
		t.Errorf("clients = %v, %v; want %d and not %d", clients, err, ports[0], ports[1])
	}
}
