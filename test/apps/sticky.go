package apps

import (
	"fmt"
	"maps"
	"strings"

	"github.com/unitgen/unitgen/test/rig"
)

// Sticks asks from 60 addresses and returns which instance answered each.
func (a *App) Sticks() map[string]string {
	a.T.Helper()
	const script = `
import socket, sys
for i in range(60):
    source = "127.1.0.%d" % (i + 1)
    c = socket.create_connection(("127.0.0.1", int(sys.argv[1])), 60, (source, 0))
    c.sendall(b"GET / HTTP/1.0\r\n\r\n")
    answer = b""
    while True:
        part = c.recv(4096)
        if not part: break
        answer += part
    print(source, answer.decode().split("instance=")[1].split()[0])
`
	answers := make(map[string]string)
	for line := range strings.Lines(a.MustExec(a.T, "python3", "-c", script, fmt.Sprint(a.Port))) {
		source, instance, _ := strings.Cut(strings.TrimSpace(line), " ")
		answers[source] = instance
	}
	if len(answers) != 60 {
		a.T.Fatalf("answers to %d of 60 clients", len(answers))
	}
	return answers
}

// Sticky checks an app of three instances with --strategy=source-hash: a client stays with its
// instance, whoever else comes or goes, and over a crash of the balancer; the clients of one that
// is away are with others, and come back.
func (a *App) Sticky() {
	a.T.Helper()
	first := a.Sticks()
	shares := make(map[string]int)
	for _, instance := range first {
		shares[instance]++
	}
	if len(shares) != 3 {
		a.T.Errorf("shares of 60 clients are %v", shares)
	}
	stay := func(when string) {
		a.T.Helper()
		if again := a.Sticks(); !maps.Equal(first, again) {
			a.T.Errorf("clients moved %s: %v, before %v", when, again, first)
		}
	}
	pid := a.PID(a.Shim())
	a.MustExec(a.T, "kill", "-s", "KILL", pid)
	a.AwaitNew(a.Shim(), pid)
	a.AwaitUp(a.N)
	stay("over a crash of the balancer")

	a.MustSystemctl("stop", a.Instance(2))
	moved := 0
	for source, instance := range a.Sticks() {
		if first[source] == "2" && instance != "2" {
			moved++
		} else if instance != first[source] {
			a.T.Errorf("client %s moved from %s to %s when instance 2 stopped", source, first[source], instance)
		}
	}
	if moved != shares["2"] {
		a.T.Errorf("%d of %d clients of instance 2 are elsewhere", moved, shares["2"])
	}
	a.MustSystemctl("start", a.Instance(2))
	a.AwaitUp(a.N)
	stay("when instance 2 was back")

	a.Unitgen("--instances=4")
	a.N = 4
	a.AwaitUp(4)
	came := 0
	for source, instance := range a.Sticks() {
		if instance == "4" {
			came++
		} else if instance != first[source] {
			a.T.Errorf("client %s moved from %s to %s when instance 4 came", source, first[source], instance)
		}
	}
	if came == 0 {
		a.T.Error("instance 4 got no client")
	}
	a.Unitgen("--instances=3")
	a.N = 3
	a.AwaitUp(3)
	stay("when instance 4 left")

	load := a.Load(rig.LoadOptions{Rate: 50})
	a.Reload()
	a.Lossless(load.Stop())
	a.AwaitUp(3)
	stay("over a reload")
}
