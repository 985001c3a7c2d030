package main

import (
	"context"
	"fmt"
	"strconv"
)

// instances is how many each app has at the begin of each step.
const instances = 3

// hostileInstance is the instance that attacks, of apps that have one.
const hostileInstance = 2

// app is one app under test.
type app struct {
	name    string
	port    int
	options []string // of unitgen
	command []string
	broken  map[string]string // files of a release that ends at once, and of one that never gets ready ("-hangs")
	source  string            // what current/program is, on the host
	http2   bool
	rare    bool // its kept clients are silent for seconds: what ends at SIGTERM is drained when all are
	hostile bool // hostileInstance attacks, all the time: no fault hits the app, and its own clients are not counted
}

// folder is where the releases of the app are; the link current says which one runs.
func (a *app) folder() string { return "/srv/" + a.name }

const (
	endsAtOnce = "#!/bin/sh\nexit 3\n"
	neverReady = "#!/bin/sh\nexec sleep 1000\n"

	endsAtOnceJS = "throw new Error('broken');\n"
	neverReadyJS = "setInterval(() => {}, 1000);\n"
)

// newApps returns the apps of a run. The programs of the first and second are the same.
func newApps() []*app {
	all := []*app{
		{name: "plain", source: "server"},
		{name: "handed", source: "server", options: []string{"--path=handoff"}},
		{name: "crude", source: "crude.py", rare: true},
		{name: "node", source: "server.js"},
		{name: "streams", source: "http2.js", http2: true},
		{name: "hostile", source: "hostile", hostile: true},
		{name: "rogue", source: "rogue.js", hostile: true},
	}
	for i, a := range all {
		a.port = 3001 + i
		program := a.folder() + "/current/" + a.source
		a.command = []string{program}
		a.broken = map[string]string{"broken": endsAtOnce, "hangs": neverReady}
		if a.javaScript() {
			a.command = []string{"/usr/bin/node", program}
			a.broken = map[string]string{"broken": endsAtOnceJS, "hangs": neverReadyJS}
		}
	}
	return all
}

func (a *app) javaScript() bool { return len(a.source) > 3 && a.source[len(a.source)-3:] == ".js" }

// Names of the app's units.
func (a *app) shim() string          { return a.name + ".service" }
func (a *app) instance(i int) string { return a.name + "@" + strconv.Itoa(i) + ".service" }
func (a *app) addr() string          { return "127.0.0.1:" + strconv.Itoa(a.port) }
func (a *app) control() string       { return "/run/unitgen/" + a.name + "/control" }

// patterns match the units of the app that PID 1 has loaded.
func (a *app) patterns() []string { return []string{a.name + ".*", a.name + "@*", a.name + "-*"} }

// install puts the releases of the app into the container, writes its units and starts it.
func (w *world) install(ctx context.Context, a *app, program []byte) error {
	files := map[string][]byte{"good": program}
	for release, text := range a.broken {
		files[release] = []byte(text)
	}
	for release, data := range files {
		if err := w.c.WriteFile(ctx, a.folder()+"/"+release+"/"+a.source, data, 0o755); err != nil {
			return err
		}
	}
	if err := w.release(ctx, a, "good"); err != nil {
		return err
	}
	args := append([]string{"unitgen", a.name, fmt.Sprintf("--instances=%d", instances), fmt.Sprintf("--listen=%d", a.port),
		"--start-timeout=" + startTimeout, "--now"}, a.options...)
	_, err := w.run(ctx, append(append(args, "--"), a.command...)...)
	return err
}

// startTimeout is how long a release may take to get ready: on a machine that does other things
// too, but one that never does must not take up the run.
const startTimeout = "20s"

// release makes a release the current one, in one rename.
func (w *world) release(ctx context.Context, a *app, release string) error {
	_, err := w.run(ctx, "ln", "-sfnT", release, a.folder()+"/current")
	return err
}
