//go:build integration

package generator

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/unitgen/unitgen/test/rig"
)

// testNowFails starts apps that cannot work: unitgen says why and what to look at, and the app can
// be mended or removed.
func testNowFails(t *testing.T, s *system) {
	tests := []struct {
		name  string
		args  []string
		cause string // what is said of the instances
		hint  string
	}{
		{"failing", []string{"--", "/bin/ls", "/no/such/config"}, `ls: cannot access '/no/such/config'`, "unitgen logs failing@1"},
		{"unready", []string{"--start-timeout=2s", "--", "/bin/sleep", "infinity"}, "accepted no connection", "unitgen unready --start-timeout=6s"},
		{"groupless", []string{"-p", "SupplementaryGroups=nosuchgroup", "--", server}, "supplementary groups", "unitgen logs groupless@1"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			port := s.newPort()
			s.removeLater(t, tt.name)
			out := s.run(t, append([]string{"unitgen", tt.name, "--instances=2", "--now", listenOption(port)}, tt.args...)...)
			said := regexp.MustCompile(`(?m)^unitgen: .*$`).FindAllString(out.Stderr, -1)
			if out.Status != 1 || len(said) < 2 || !strings.HasPrefix(said[0], "unitgen: "+tt.name+"@1") ||
				!strings.Contains(said[0], tt.cause) || said[len(said)-1] != "unitgen: hint: "+tt.hint {
				t.Fatalf("unitgen --now = %d, says %q; want 1, %q and the hint %s", out.Status, out.Stderr, tt.cause, tt.hint)
			}
			s.unitgen(t, tt.name, "--property=", "--start-timeout=15s", "--now", "--", server)
			s.awaitUp(t, tt.name, 2)
			if text := s.get(t, port); !strings.HasPrefix(text, "instance=") {
				t.Errorf("the mended app answers %q", text)
			}
		})
	}
}

// testMendStarting mends an app whose instances start and will never be ready: nobody waits for
// their time-out.
func testMendStarting(t *testing.T, s *system) {
	const name = "mended"
	s.removeLater(t, name)
	s.unitgen(t, name, "--instances=2", listenOption(s.newPort()), "--start-timeout=10min", "--", "/bin/sleep", "infinity")
	s.MustExec(t, "systemctl", "start", "--no-block", name)
	for _, unit := range []string{name + "@1.service", name + "@2.service"} {
		s.MustWait(t, limit, unit, func(p rig.Properties) bool { return p["SubState"] == "start-post" })
	}
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	defer cancel()
	if out, err := s.Exec(ctx, "unitgen", name, "--now", "--", server); err != nil || out.Status != 0 {
		t.Errorf("unitgen --now: %+v, %v", out, err)
	}
}

// testMendFailing mends an app whose balancer is about to fail by the units of before. PID 1 makes
// one job of both starts.
func testMendFailing(t *testing.T, s *system) {
	const name, dropIn = "about-to-fail", units + "/about-to-fail.service.d"
	s.removeLater(t, name)
	s.later(t, "rm", "-rf", dropIn)
	s.unitgen(t, name, "--instances=2", listenOption(s.newPort()), "--", server)
	s.MustWriteFile(t, dropIn+"/x.conf", "[Service]\nRestartSec=1h\nExecStartPre=/bin/sh -c 'sleep 3; exit 1'\n", 0o644)
	s.MustExec(t, "systemctl", "daemon-reload")
	s.MustExec(t, "systemctl", "start", "--no-block", name)
	s.MustWait(t, limit, name+".service", func(p rig.Properties) bool { return p["SubState"] == "start-pre" })
	s.MustExec(t, "rm", "-r", dropIn)
	s.unitgen(t, name, "--env=A=1", "--now")
	s.awaitUp(t, name, 2)
}

// testRemove removes apps in every state: nothing of them is left.
func testRemove(t *testing.T, s *system) {
	tests := []struct {
		name  string
		setup func(name string)
	}{
		{"removed-running", func(name string) { s.unitgen(t, name, "--now"); s.awaitUp(t, name, 3) }},
		{"removed-unstarted", func(string) {}},
		{"removed-enabled", func(name string) { s.MustExec(t, "systemctl", "enable", name) }},
		{"removed-idle", func(name string) { s.MustExec(t, "systemctl", "start", name+".socket") }},
		{"removed-failed", func(name string) {
			if out := s.run(t, "unitgen", name, "--now", "--", "/bin/false"); out.Status != 1 {
				t.Errorf("start of an app that fails = %+v", out)
			}
			s.run(t, "systemctl", "stop", name+".service")
		}},
		{"removed-failing", func(name string) {
			if out := s.run(t, "unitgen", name, "--now", "--", "/bin/false"); out.Status != 1 {
				t.Errorf("start of an app that fails = %+v", out)
			}
		}},
		{"removed-damaged", func(name string) { // PID 1 of 257 does not disable a unit that is no text
			s.unitgen(t, name, "--now")
			s.awaitUp(t, name, 3)
			s.MustExec(t, "sh", "-c", `printf '[Unit]\nDescription=\377\n' >> `+units+"/"+name+".service")
		}},
		{"removed-extra", func(name string) {
			s.unitgen(t, name, "--now")
			s.awaitUp(t, name, 3)
			s.MustExec(t, "systemctl", "start", name+"@7")
			s.awaitUp(t, name, 4)
		}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			port := s.newPort()
			s.removeLater(t, tt.name)
			before := s.names(t)
			s.unitgen(t, tt.name, "--instances=3", listenOption(port), "--", server)
			tt.setup(tt.name)
			s.unitgen(t, "remove", tt.name)
			if after := s.names(t); after != before {
				t.Errorf("files:\n%s\nbefore\n%s", after, before)
			}
			s.checkGone(t, tt.name, port)
			s.refused(t, 2, []string{`there is no app`}, "remove", tt.name)
		})
	}
}

// names are the names of all unit files, links and directories that an admin or a tool may add to.
func (s *system) names(t *testing.T) string {
	t.Helper()
	// Folders that come with the first app or transient unit of a system.
	s.MustExec(t, "mkdir", "-p", "/run/systemd/system", "/run/systemd/transient", "/run/unitgen")
	return sortLines(s.MustExec(t, "find", units, "/run/systemd/system", "/run/systemd/transient", "/run/unitgen", "-printf", `%p -> %l\n`))
}

// checkGone checks that PID 1 knows nothing of the app and that nothing listens or runs.
func (s *system) checkGone(t *testing.T, name string, port int) {
	t.Helper()
	patterns := []string{name + ".*", name + "[@-]*"}
	if list := s.MustExec(t, append([]string{"systemctl", "list-units", "--all", "--plain", "--no-legend"}, patterns...)...); list != "" {
		t.Errorf("units of %s:\n%s", name, list)
	}
	if list := s.run(t, append([]string{"systemctl", "list-unit-files", "--no-legend"}, patterns...)...).Stdout; list != "" {
		t.Errorf("unit files of %s:\n%s", name, list)
	}
	if list := s.listeners(t, port); list != "" {
		t.Errorf("listeners of %s:\n%s", name, list)
	}
}

// testReadOnlyVerbs runs all that must not write: not a byte of the disk changes, nor does anything
// that runs.
func testReadOnlyVerbs(t *testing.T, s *system) {
	port := s.newPort()
	s.removeLater(t, "looked")
	s.unitgen(t, "looked", "--instances=2", "--now", listenOption(port), "--", server)
	s.awaitUp(t, "looked", 2)
	tests := []struct {
		args   []string
		status int
	}{
		{[]string{"looked", "--dry-run", "--instances=5", "--env=A=1"}, 0},
		{[]string{"looked", "--dry-run", "--now", listenOption(port + 1000)}, 0},
		{[]string{"new", "--dry-run", listenOption(port + 1000), "--", server}, 0},
		{[]string{"looked", "--check", "--instances=5"}, 1},
		{[]string{"looked", "--check"}, 0},
		{[]string{"new", "--check", listenOption(port + 1000), "--", server}, 1},
		{[]string{"scale", "looked", "5", "--check"}, 1},
		{[]string{"scale", "looked", "5", "--dry-run"}, 0},
		{[]string{"diff", "looked", "--env=A=1", "--instances=1", "--", "/bin/true"}, 0},
		{[]string{"diff", "new", listenOption(port + 1000), "--", server}, 0},
		{[]string{"remove", "looked", "--dry-run"}, 0},
		{[]string{"list"}, 0},
		{[]string{"list", "--json=pretty"}, 0},
		{[]string{"status", "looked"}, 0},
		{[]string{"status", "looked", "--json=short"}, 0},
		{[]string{"help"}, 0},
		{[]string{"--version"}, 0},
	}
	all := append(appUnits("looked"), unitsOf("looked", 1, 2)...)
	running, disk, reloads := s.invocations(t, all...), s.tree(t, "/etc", "/usr/lib/systemd", "/srv"), s.reloads(t)
	for _, tt := range tests {
		out := s.run(t, append([]string{"unitgen"}, tt.args...)...)
		if out.Status != tt.status || tt.status == 0 && out.Stderr != "" {
			t.Errorf("unitgen %q = %d, %q; want %d", tt.args, out.Status, out.Stderr, tt.status)
		}
		if after := s.tree(t, "/etc", "/usr/lib/systemd", "/srv"); after != disk {
			t.Fatalf("unitgen %q has written:\n%s\nbefore\n%s", tt.args, after, disk)
		}
	}
	if n := s.reloads(t) - reloads; n != 1 { // that of counting
		t.Errorf("PID 1 was reloaded %d times", n-1)
	}
	if after := s.invocations(t, all...); after != running {
		t.Errorf("units:\n%s\nbefore\n%s", after, running)
	}
	// What --dry-run prints is what is written.
	text := s.unitgen(t, "looked", "--dry-run", "--env=A=1").Stdout
	s.unitgen(t, "looked", "--env=A=1")
	file, err := s.ReadFile(units + "/looked@.service")
	if err != nil || !strings.Contains(text, "\n# "+units+"/looked@.service\n"+string(file)) {
		t.Errorf("--dry-run printed\n%s\nwritten was (%v)\n%s", text, err, file)
	}
	if diff := s.unitgen(t, "diff", "looked").Stdout; diff != "" {
		t.Errorf("diff of what was just written:\n%s", diff)
	}
}

// testList reads list and status of apps in several states, as text and as JSON.
func testList(t *testing.T, s *system) {
	up, idle, down := s.newPort(), s.newPort(), s.newPort()
	for name, port := range map[string]int{"listed-up": up, "listed-idle": idle, "listed-down": down} {
		s.removeLater(t, name)
		s.unitgen(t, name, "--instances=2", listenOption(port), "--", server)
	}
	s.MustExec(t, "systemctl", "start", "listed-up", "listed-idle.socket")
	s.awaitUp(t, "listed-up", 2)
	want := []string{
		fmt.Sprintf("listed-down inactive 0/2 %d steer", down), fmt.Sprintf("listed-idle idle 0/2 %d steer", idle),
		fmt.Sprintf("listed-up active 2/2 %d steer", up),
	}
	if got := s.listed(t); !slices.Equal(got, want) {
		t.Errorf("list = %q, want %q", got, want)
	}
	s.checkListText(t)
	s.checkFigures(t, up)
	s.checkStatus(t, up)
}

// listed is what list says of each app, without the figures.
func (s *system) listed(t *testing.T) []string {
	t.Helper()
	return listedIn(t, s.unitgen(t, "list", "--json=pretty").Stdout)
}

func listedIn(t *testing.T, text string) []string {
	t.Helper()
	var apps []struct {
		App, Path, State string
		Instances        int
		Up               *int
		Listen           []string
	}
	if err := json.Unmarshal([]byte(text), &apps); err != nil {
		t.Fatalf("list --json: %v: %s", err, text)
	}
	var lines []string
	for _, a := range apps {
		if a.Up == nil {
			t.Fatalf("list --json: up is null: %s", text)
		}
		lines = append(lines, fmt.Sprintf("%s %s %d/%d %s %s", a.App, a.State, *a.Up, a.Instances, strings.Join(a.Listen, ","), a.Path))
	}
	return lines
}

// checkListText reads the table: a column that says nothing of anybody is not there.
func (s *system) checkListText(t *testing.T) {
	t.Helper()
	lines := words(s.unitgen(t, "list", "--sort=cpu").Stdout)
	for i, want := range []string{
		`^APP STATE INSTANCES CPU( MEMORY)? CONNS CONNS/S UPTIME LISTEN PATH$`,
		`^listed-up active 2/2 [0-9.]+%( [0-9.]+[KM])? 0 0 \d+.* \d+ steer$`, `^listed-down inactive 0/2 \d+ steer$`, `^listed-idle idle 0/2 \d+ steer$`,
	} {
		if len(lines) != 4 || !regexp.MustCompile(want).MatchString(lines[i]) {
			t.Fatalf("list = %q, want line %d like %s", lines, i, want)
		}
	}
	if got := words(s.unitgen(t, "ls", "--no-legend", "--sort=cpu").Stdout); len(got) != 3 || !strings.HasPrefix(got[0], "listed-up active 2/2 ") {
		t.Errorf("ls --no-legend = %q, want %q", got, lines[1:])
	}
}

// checkFigures counts what list and status say while three connections are open, against the
// kernel's control groups. Nobody but root gets connections.
func (s *system) checkFigures(t *testing.T, port int) {
	t.Helper()
	for range 3 {
		conn, err := s.DialContext(t.Context(), "tcp", fmt.Sprintf("127.0.0.1:%d", port))
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		// What is answered has been accepted.
		_, err = fmt.Fprint(conn, "GET / HTTP/1.1\r\nHost: app\r\n\r\n")
		if line, readErr := bufio.NewReader(conn).ReadString('\n'); err != nil || readErr != nil || !strings.Contains(line, " 200 ") {
			t.Fatalf("the app answers %q, %v, %v", line, err, readErr)
		}
	}
	type figures struct {
		CPUPercent, ConnectionsPerSecond *float64
		MemoryBytes, Connections         *int
		ConnectionsTotal                 *int
	}
	sum := func(user string) (open, given int, of figures) {
		var status struct {
			Instances []struct {
				figures
				Invocation string
			}
		}
		argv := []string{"unitgen", "status", "listed-up", "--json=short"}
		if user != "" {
			argv = append([]string{"setpriv", "--reuid=" + user, "--clear-groups", "--"}, argv...)
		}
		text := s.MustExec(t, argv...)
		if err := json.Unmarshal([]byte(text), &status); err != nil || len(status.Instances) != 2 {
			t.Fatalf("status --json: %v: %s", err, text)
		}
		for i, in := range status.Instances {
			if id := s.MustShow(t, fmt.Sprintf("listed-up@%d.service", i+1), "InvocationID"); in.Invocation != id {
				t.Errorf("invocation %s, want %s", in.Invocation, id)
			}
			if in.Connections != nil {
				open, given = open+*in.Connections, given+*in.ConnectionsTotal
			}
			of = in.figures
		}
		return open, given, of
	}
	open, given, of := sum("")
	if open != 3 || given != 3 || of.CPUPercent == nil || *of.CPUPercent <= 0 || *of.ConnectionsPerSecond <= 0 {
		t.Errorf("%d connections are open and %d given, want 3: %+v", open, given, of)
	}
	// Without the memory controller, as where that is one of cgroup v1, nobody knows.
	text, err := s.ReadFile("/sys/fs/cgroup" + s.MustShow(t, "listed-up@2.service", "ControlGroup") + "/memory.current")
	if n, _ := strconv.Atoi(strings.TrimSpace(string(text))); (err == nil) != (of.MemoryBytes != nil) || err == nil && (*of.MemoryBytes < n/2 || *of.MemoryBytes > 2*n) {
		t.Errorf("memory %v, the kernel says %d, %v", of.MemoryBytes, n, err)
	}
	if _, _, of := sum("nobody"); of.Connections != nil || of.CPUPercent == nil {
		t.Errorf("nobody gets %+v", of)
	}
}

// words are the lines of a table, with one blank between the cells.
func words(table string) []string {
	var lines []string
	for line := range strings.Lines(table) {
		lines = append(lines, strings.Join(strings.Fields(line), " "))
	}
	return lines
}

// checkStatus compares status with PID 1's own figures, of an app of which one instance is stopped
// then.
func (s *system) checkStatus(t *testing.T, port int) {
	t.Helper()
	s.MustExec(t, "systemctl", "stop", "listed-up@2")
	s.MustWait(t, limit, "listed-up.service", func(p rig.Properties) bool { return strings.Contains(p["StatusText"], "1/") })
	var status struct {
		App, State, Strategy string
		Listen               []string
		Instances            []struct {
			Instance, State string
			PID             int
			Since           *string
		}
	}
	text := s.unitgen(t, "status", "listed-up", "--json=short").Stdout
	if err := json.Unmarshal([]byte(text), &status); err != nil || len(status.Instances) != 2 {
		t.Fatalf("status --json = %s, %v", text, err)
	}
	one, two := status.Instances[0], status.Instances[1]
	pid := s.MustShow(t, "listed-up@1.service", "MainPID")
	if one.Instance != "listed-up@1" || one.State != "up" || fmt.Sprint(one.PID) != pid || one.Since == nil ||
		two.Instance != "listed-up@2" || two.State != "down" || two.PID != 0 || two.Since != nil {
		t.Errorf("status --json = %s, want listed-up@1 up with process %s and the other down", text, pid)
	}
	lines := words(s.unitgen(t, "status", "listed-up").Stdout)
	for _, want := range []string{`^listed-up: active since .*, 1/2 instances up$`, fmt.Sprintf(`^Listen: %d Path: steer.* Strategy: round-robin`, port),
		`^INSTANCE STATE PID CPU( MEMORY)? CONNS CONNS/S UPTIME TOTAL`, `^listed-up@1 up ` + pid + ` `, `^listed-up@2 down `} {
		if !slices.ContainsFunc(lines, regexp.MustCompile(want).MatchString) {
			t.Errorf("status = %q, want a line like %s", lines, want)
		}
	}
	if rows := s.unitgen(t, "status", "--no-legend", "listed-up").Stdout; strings.Count(rows, "\n") != 2 {
		t.Errorf("status --no-legend = %q, want a line for each instance", rows)
	}
}
