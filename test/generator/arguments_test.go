//go:build integration

package generator

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/godbus/dbus/v5"

	"github.com/unitgen/unitgen/internal/app/apptest"
	"github.com/unitgen/unitgen/test/rig"
)

// Seeds and numbers of what is generated beside the vectors made by hand.
const (
	seed            = 20250901
	randomVectors   = 1800
	atOnce          = 5 // of them in one command
	randomValues    = 1500
	showEvery       = 3  // of the apps are shown by PID 1 before they are executed
	startsAtOnce    = 60 // jobs in one call of systemctl: as many processes are there at a time
	writersAtOnce   = 4  // unitgen processes
	liveRandomArgs  = 600
	longestArgument = 128<<10 - 1 // MAX_ARG_STRLEN of execve(2), without the NUL
)

// process is what an instance is to be started with.
type process struct {
	name string   // of the app
	argv []string // the program first
	env  []string // KEY=VALUE
	cwd  string
	text bool // PID 1 can show it over D-Bus
}

// programs are paths of echoargs: an app's program is argv[0], for which PID 1 has rules of its
// own.
func programs() []string {
	return []string{echo, "/srv/bin/100%i $HOME;x", "/srv/bin/-@:+!|echo", "/srv/bin/日 本%%", "/srv/bin/${INSTANCE}"}
}

// processes spreads all vectors, values and directories over apps. A vector made by hand has an app
// of its own.
func processes() []process {
	vectors := append(apptest.Vectors(), together(apptest.Generate(seed, randomVectors))...)
	values := append(apptest.Values(), apptest.GenerateValues(seed, randomValues)...)
	dirs := directories(values)
	perApp := (len(values) + len(vectors) - 1) / len(vectors)
	all := make([]process, len(vectors))
	for i, v := range vectors {
		program := programs()[i%len(programs())]
		p := process{name: fmt.Sprintf("vec-%d", i), argv: append([]string{program}, v.Args...), cwd: dirs[i%len(dirs)], text: v.Text()}
		for j := range perApp {
			if k := i*perApp + j; k < len(values) {
				value := values[k]
				p.env = append(p.env, fmt.Sprintf("V%d=%s", j, value[:min(len(value), longestArgument-len("--env=V9="))]))
			}
		}
		all[i] = p
	}
	return all
}

// together joins vectors, those apart that PID 1 can show.
func together(vectors []apptest.Vector) (joined []apptest.Vector) {
	shown := slices.DeleteFunc(slices.Clone(vectors), func(v apptest.Vector) bool { return !v.Text() })
	others := slices.DeleteFunc(vectors, apptest.Vector.Text)
	for _, kind := range [][]apptest.Vector{shown, others} {
		for some := range slices.Chunk(kind, atOnce) {
			var one apptest.Vector
			for _, v := range some {
				one.Args = append(one.Args, v.Args...)
			}
			joined = append(joined, one)
		}
	}
	return joined
}

// shareOf is what one suite executes: all that was made by hand, and its share of the rest, which
// an older systemd has in make test-all only.
func shareOf(suite string, all []process) []process {
	n := len(apptest.Vectors())
	share := slices.Clone(all[:n])
	if suite != rig.Newest && !rig.All() {
		return share
	}
	for i, p := range all[n:] {
		if i%len(rig.Suites) == slices.Index(rig.Suites, suite) {
			share = append(share, p)
		}
	}
	return share
}

// directories are paths that end in one of values, as far as a working directory can.
func directories(values []string) []string {
	var dirs []string
	for _, value := range values {
		dir := "/srv/" + value
		tooLong := slices.ContainsFunc(strings.Split(dir, "/"), func(part string) bool { return len(part) > 255 })
		if path.Clean(dir) == dir && !tooLong && len(dir) < 4000 && !strings.ContainsAny(dir, "\n\r") {
			dirs = append(dirs, dir)
		}
	}
	return dirs
}

// TestArguments has hundreds of apps written, with two thousand vectors of arguments, environment
// and working directories that are hard to write into a unit file, and compares what PID 1 knows
// and executes with what was given.
//
// The units app@.service and app@.socket are installed as unitgen has written them. A drop-in makes
// the instances end at once, and takes away their sandbox and slices, which would cost more time
// than all the rest. PID 1 executes the program itself: what goes through the launcher is
// LiveArguments' matter.
func TestArguments(t *testing.T) {
	programs, all := build(t), processes()
	dir := t.TempDir()
	writeAll(t, dir, all)
	rig.EachSuite(t, func(t *testing.T, suite string) {
		all := shareOf(suite, all)
		s := boot(t, suite, programs)
		s.install(t, dir, all)
		s.checkKnown(t, all)
		for some := range slices.Chunk(all, startsAtOnce) {
			s.execute(t, some)
		}
		for _, p := range all {
			text, err := s.ReadFile("/run/echo/" + p.name)
			if err != nil {
				t.Errorf("%s was not executed: %v", p, err)
				continue
			}
			p.check(t, text)
		}
		t.Logf("%d apps", len(all))
	})
}

// execute starts the first instance of each of some, which ends by itself, and closes their
// sockets: a thousand listeners on one port take their time.
func (s *system) execute(t *testing.T, some []process) {
	t.Helper()
	start, stop := []string{"systemctl", "start"}, []string{"systemctl", "stop"}
	for _, p := range some {
		start = append(start, p.name+"@1.service")
		stop = append(stop, p.name+"@1.socket")
	}
	for _, argv := range [][]string{start, stop} {
		if out := s.run(t, argv...); out.Status != 0 {
			t.Errorf("%s: %s", argv[1], out.Stderr)
		}
	}
}

// writeAll runs unitgen for each of all, with --output=dir.
func writeAll(t *testing.T, dir string, all []process) {
	t.Helper()
	unitgen := rig.Bin(t, "unitgen")
	work := make(chan process)
	var writers sync.WaitGroup
	for range writersAtOnce {
		writers.Go(func() {
			for p := range work {
				args := append(p.options(), "--listen=3000", "--kind=listen", "--systemd-version=252", "--output="+filepath.Join(dir, p.name), "--")
				cmd := exec.CommandContext(t.Context(), unitgen, append(args, p.argv...)...)
				if out, err := cmd.CombinedOutput(); err != nil {
					t.Errorf("%s: %v\n%s", p, err, out)
				}
			}
		})
	}
	for _, p := range all {
		work <- p
	}
	close(work)
	writers.Wait()
	if t.Failed() {
		t.FailNow()
	}
}

// options are the options of unitgen for p, the name first.
func (p process) options() []string {
	args := []string{p.name, "--working-directory=" + p.cwd}
	for _, assignment := range p.env {
		args = append(args, "--env="+assignment)
	}
	return args
}

// install copies the units of the instances into the system.
func (s *system) install(t *testing.T, dir string, all []process) {
	t.Helper()
	for _, p := range all {
		for _, unit := range []string{p.name + "@.service", p.name + "@.socket"} {
			text, err := os.ReadFile(filepath.Join(dir, p.name, unit))
			if err != nil {
				t.Fatal(err)
			}
			s.MustWriteFile(t, units+"/"+unit, string(text), 0o644)
		}
	}
	s.MustWriteFile(t, units+"/vec-@.service.d/once.conf", onceDropIn, 0o644)
	s.MustWriteFile(t, units+"/vec-@.socket.d/once.conf", "[Socket]\nSlice=system.slice\n", 0o644)
	s.MustExec(t, "systemd-analyze", "log-level", "notice") // four lines of the journal for each would take longer than the program
	s.makePlaces(t, all)
	s.MustExec(t, "systemctl", "daemon-reload")
}

// makePlaces makes the programs and working directories.
func (s *system) makePlaces(t *testing.T, all []process) {
	t.Helper()
	dirs := []string{"/srv/bin", "/run/echo"}
	for _, p := range all {
		dirs = append(dirs, p.cwd)
	}
	for some := range slices.Chunk(dirs, 200) {
		s.MustExec(t, append([]string{"mkdir", "-p", "--"}, some...)...)
	}
	for _, program := range programs()[1:] {
		s.MustExec(t, "ln", "-f", echo, program)
	}
}

// onceDropIn makes the instances of all apps called vec-… end at once. None of it touches what is
// under test.
const onceDropIn = `[Service]
Type=oneshot
Environment=ECHO_ONCE=1
StandardOutput=file:/run/echo/%p
Restart=no
Slice=system.slice
ExecStartPre=
ExecStartPost=
ExecStop=
ExecStopPost=
DynamicUser=no
User=root
PrivateTmp=no
PrivateDevices=no
ProtectSystem=no
ProtectHome=no
ProtectProc=default
ProcSubset=all
ProtectKernelTunables=no
ProtectKernelModules=no
ProtectKernelLogs=no
ProtectControlGroups=no
ProtectClock=no
ProtectHostname=no
RemoveIPC=no
RestrictAddressFamilies=
RestrictNamespaces=no
RestrictRealtime=no
RestrictSUIDSGID=no
LockPersonality=no
MemoryDenyWriteExecute=no
SystemCallArchitectures=
SystemCallFilter=
`

// String names the process in messages, shortened.
func (p process) String() string { return fmt.Sprintf("%s %.200q", p.name, p.argv) }

// check compares what echoargs has printed with p.
func (p process) check(t *testing.T, text []byte) {
	t.Helper()
	var got struct{ Cmdline, Environ, Cwd []byte }
	if err := json.Unmarshal(text, &got); err != nil {
		t.Errorf("%s: %v in %.200q", p, err, text)
		return
	}
	if argv := strings.Split(strings.TrimSuffix(string(got.Cmdline), "\x00"), "\x00"); !slices.Equal(argv, p.argv) {
		t.Errorf("%s: executed with %s", p, difference(argv, p.argv))
	}
	if string(got.Cwd) != p.cwd {
		t.Errorf("%s: in directory %q, want %q", p, got.Cwd, p.cwd)
	}
	environ := variables(strings.Split(string(got.Environ), "\x00"))
	for key, values := range variables(p.env) {
		if !slices.Equal(environ[key], values) {
			t.Errorf("%s: environment has %s=%.1000q, want %.1000q", p, key, environ[key], values)
		}
	}
}

// difference tells the first argument that is not what it should be.
func difference(got, want []string) string {
	for i := range min(len(got), len(want)) {
		if got[i] != want[i] {
			return fmt.Sprintf("argument %d %.1000q, want %.1000q", i, got[i], want[i])
		}
	}
	return fmt.Sprintf("%d arguments, want %d", len(got), len(want))
}

// variables are all values of each name in an environment.
func variables(environ []string) map[string][]string {
	values := make(map[string][]string)
	for _, assignment := range environ {
		key, value, _ := strings.Cut(assignment, "=")
		values[key] = append(values[key], value)
	}
	return values
}

// checkKnown compares PID 1's own view of each process, where it can show it (systemctl show,
// busctl get-property).
func (s *system) checkKnown(t *testing.T, all []process) {
	t.Helper()
	conn, err := s.Manager(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	checked := 0
	for i, p := range all {
		if !p.text || i%showEvery != 0 {
			continue
		}
		checked++
		// To ask for a unit that is not loaded loads it.
		properties, err := conn.GetUnitTypePropertiesContext(t.Context(), p.name+"@1.service", "Service")
		if err != nil {
			t.Errorf("%s: ask PID 1: %v", p, err)
			continue
		}
		p.checkProperties(t, properties)
	}
	if checked < len(all)/showEvery/2 {
		t.Errorf("PID 1 was asked for %d of %d units", checked, len(all))
	}
}

// checkProperties compares the properties of a service with p. Variables are expanded later, so
// "$$" is still double.
func (p process) checkProperties(t *testing.T, properties map[string]any) {
	t.Helper()
	var lines []struct {
		Path                             string
		Argv                             []string
		IgnoreFailure                    bool
		Start, StartMono, Exit, ExitMono uint64
		PID                              uint32
		Code, Status                     int32
	}
	if err := dbus.Store([]any{properties["ExecStart"]}, &lines); err != nil || len(lines) != 1 {
		t.Errorf("%s: PID 1 has %d commands, %v", p, len(lines), err)
		return
	}
	want := slices.Clone(p.argv)
	if !strings.Contains(want[0], "$") { // else ":" keeps all of the line from being expanded
		for i := range want {
			want[i] = strings.ReplaceAll(want[i], "$", "$$")
		}
	}
	if lines[0].Path != p.argv[0] || !slices.Equal(lines[0].Argv, want) {
		t.Errorf("%s: PID 1 has the command %q with %s", p, lines[0].Path, difference(lines[0].Argv, want))
	}
	if cwd, _ := properties["WorkingDirectory"].(string); cwd != p.cwd {
		t.Errorf("%s: PID 1 has the directory %q, want %q", p, cwd, p.cwd)
	}
	environ, _ := properties["Environment"].([]string)
	known, given := variables(environ), variables(p.env)
	delete(known, "ECHO_ONCE")
	given["INSTANCE"] = []string{"1"}
	if !maps.EqualFunc(known, given, slices.Equal) {
		t.Errorf("%s: PID 1 has the environment %.1000q, want %.1000q", p, known, given)
	}
}

// testLiveArguments has apps written and started by unitgen itself, with their sandbox and all
// their units: one with all vectors made by hand in one command, one with random ones.
func testLiveArguments(t *testing.T, s *system) {
	var byHand, random []string
	for _, v := range apptest.Vectors() {
		if !strings.HasPrefix(v.Name, "long") {
			byHand = append(byHand, v.Args...)
		}
	}
	for _, v := range apptest.Generate(seed+1, liveRandomArgs) {
		random = append(random, v.Args...)
	}
	long := strings.Repeat(`x%$"'\ é`+"\n", 10<<10) // 110 kB
	for i, args := range [][]string{byHand, random, {long}} {
		p := process{name: "live" + strconv.Itoa(i), argv: append([]string{programs()[i]}, args...), cwd: "/srv/%h $HOME 'it\\s' " + strconv.Itoa(i) + " "}
		for j, value := range apptest.GenerateValues(seed+2+uint64(i), 200) {
			p.env = append(p.env, fmt.Sprintf("V%d=%s", j, value))
		}
		t.Run(p.name, func(t *testing.T) { s.checkLive(t, p) })
	}
}

// checkLive starts p as an app of two instances and asks both of them.
func (s *system) checkLive(t *testing.T, p process) {
	s.makePlaces(t, []process{p})
	port := s.newPort()
	s.removeLater(t, p.name)
	args := append(p.options(), "--instances=2", "--now", listenOption(port), "--")
	s.unitgen(t, append(args, p.argv...)...)
	s.awaitUp(t, p.name, 2)
	instances := make(map[string]int)
	for range 2 { // round-robin
		text := s.ask(t, port)
		p.check(t, text)
		var got struct{ Environ []byte }
		if err := json.Unmarshal(text, &got); err == nil {
			for _, value := range variables(strings.Split(string(got.Environ), "\x00"))["INSTANCE"] {
				instances[value]++
			}
		}
	}
	if want := map[string]int{"1": 1, "2": 1}; !maps.Equal(instances, want) {
		t.Errorf("INSTANCE by connection = %v, want %v", instances, want)
	}
}

// ask returns what echoargs writes to a connection.
func (s *system) ask(t *testing.T, port int) []byte {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	defer cancel()
	conn, err := s.DialContext(ctx, "tcp", fmt.Sprintf("127.0.0.1:%d", port))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	deadline, _ := ctx.Deadline()
	if err := conn.SetDeadline(deadline); err != nil {
		t.Fatal(err)
	}
	text, err := io.ReadAll(conn)
	if err != nil {
		t.Fatal(err)
	}
	return text
}
