//go:build integration

package generator

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/unitgen/unitgen/test/rig"
)

// unitsOf are the units that run for instances from to to of an app.
func unitsOf(name string, from, to int) []string {
	var names []string
	for i := from; i <= to; i++ {
		names = append(names, fmt.Sprintf("%s@%d.service", name, i), fmt.Sprintf("%s@%d.socket", name, i), fmt.Sprintf("%s-join@%d.service", name, i))
	}
	return names
}

func appUnits(name string) []string {
	return []string{name + ".service", name + ".socket", name + "-control.socket", name + "-diag.socket", name + "-join.service"}
}

// testScale scales a live app under load from 3 to 5 to 2: nothing but the difference is touched.
func testScale(t *testing.T, s *system) {
	port := s.newPort()
	s.removeLater(t, "scaled")
	s.unitgen(t, "scaled", "--instances=3", "--now", listenOption(port), "--", server)
	s.awaitUp(t, "scaled", 3)
	load := s.load(port)
	awaitOK(t, load, 100)
	for _, step := range []struct{ from, to int }{{3, 5}, {5, 2}} {
		kept := append(appUnits("scaled"), unitsOf("scaled", 1, min(step.from, step.to))...)
		before, filesBefore := s.invocations(t, kept...), s.unitFiles(t, "scaled")
		reloads := s.reloads(t)
		s.unitgen(t, "scale", "scaled", fmt.Sprint(step.to))
		if n := s.reloads(t) - reloads; n != 2 { // one is that of counting
			t.Errorf("%v: %d reloads of PID 1, want 1", step, n-1)
		}
		s.awaitUp(t, "scaled", step.to)
		awaitOK(t, load, 100)
		if after := s.invocations(t, kept...); after != before {
			t.Errorf("%v: units that stay:\n%s\nbefore\n%s", step, after, before)
		}
		if after := s.unitFiles(t, "scaled"); after != filesBefore {
			t.Errorf("%v: unit files:\n%s\nbefore\n%s", step, after, filesBefore)
		}
		s.checkInstances(t, "scaled", port, step.to)
	}
	if r := load.Stop(); r.Failed() > 0 || r.OK == 0 {
		t.Errorf("load: %s", r)
	}
}

// testNames starts apps whose names PID 1 must quote somewhere: its instances join, and PID 1 sees by
// their control groups that they run.
func testNames(t *testing.T, s *system) {
	for name, option := range map[string]string{"_odd": "--surge=1", "cpu.odd": "--surge=1", "odd-slice": "-pSlice=odd-deep-er.slice"} {
		s.removeLater(t, name)
		s.unitgen(t, name, "--instances=2", "--now", listenOption(s.newPort()), option, "--", server)
		s.awaitUp(t, name, 2)
		if got := s.MustExec(t, "ls", "/run/unitgen/"+name+"/joined"); got != "1\n2\n" {
			t.Errorf("%s: %q have joined, want both", name, got)
		}
		const script = `ls -d $(sed -n "s/^ConditionPathExistsGlob=!//p" "$1") 2>/dev/null | wc -l`
		if got := s.MustExec(t, "sh", "-c", script, "sh", units+"/"+name+"-join.service"); got != "2\n" {
			t.Errorf("%s: PID 1 sees %s control groups of instances, want 2", name, strings.TrimSpace(got))
		}
	}
}

// unitFiles describes the unit files of an app, without those that say what its instances are: links,
// and the one that lists their listeners.
func (s *system) unitFiles(t *testing.T, name string) string {
	t.Helper()
	return sortLines(s.MustExec(t, "find", units, "-maxdepth", "1", "-name", name+"*", "!", "-name", name+"-join.service", "-type", "f", "-printf", `%p %i %m %T@ %s\n`))
}

// checkInstances checks that an app has n instances: links, running units and listening sockets.
func (s *system) checkInstances(t *testing.T, name string, port, n int) {
	t.Helper()
	var links []string
	for i := 1; i <= n; i++ {
		links = append(links, fmt.Sprintf("%s@%d.service -> ../%s@.service\n", name, i, name))
	}
	slices.Sort(links)
	if got := sortLines(s.MustExec(t, "find", units+"/"+name+".service.wants", "-mindepth", "1", "-printf", `%f -> %l\n`)); got != strings.Join(links, "") {
		t.Errorf("links of %s:\n%swant %d", name, got, n)
	}
	var sockets, entries []string
	for i := 1; i <= n; i++ {
		sockets = append(sockets, fmt.Sprintf("Sockets=%s@%d.socket\n", name, i))
		entries = append(entries, fmt.Sprintln(i))
	}
	if got := s.MustExec(t, "grep", "^Sockets=", units+"/"+name+"-join.service"); got != strings.Join(sockets, "") {
		t.Errorf("listeners that join when %s starts:\n%swant %d", name, got, n)
	}
	if got := s.MustExec(t, "ls", "/run/unitgen/"+name+"/joined"); got != strings.Join(entries, "") {
		t.Errorf("instances of %s that have joined:\n%swant %d", name, got, n)
	}
	list := s.MustExec(t, "systemctl", "list-units", "--plain", "--no-legend", "--state=active,activating,deactivating,failed", name+"@*")
	if got := strings.Count(list, " active "); got != 2*n || strings.Count(list, "\n") != got {
		t.Errorf("units of %s:\n%swant %d active ones", name, list, 2*n)
	}
	if list := s.listeners(t, port); strings.Count(list, "\n") != n+1 {
		t.Errorf("listeners of %s:\n%swant one of each of %d instances and the parking listener", name, list, n)
	}
}

// settingsOf are the lines of section [X-Unitgen].
func (s *system) settingsOf(t *testing.T, name string) []string {
	t.Helper()
	text, err := s.ReadFile(units + "/" + name + ".service")
	if err != nil {
		t.Fatal(err)
	}
	_, section, found := strings.Cut(string(text), "[X-Unitgen]\n")
	if !found {
		t.Fatalf("no settings in %s", text)
	}
	return strings.Split(strings.TrimSuffix(section, "\n"), "\n")
}

// testUpdate changes one setting after the other: all others stay, and so do what runs and the
// files that the setting is not about.
func testUpdate(t *testing.T, s *system) {
	port := s.newPort()
	s.removeLater(t, "updated")
	s.MustWriteFile(t, "/etc/updated.env", "FROM_FILE=1\n", 0o644)
	s.unitgen(t, "updated", "--instances=2", "--now", listenOption(port), "--env=A=$x %i", "--env=B=2", "--env-file=/etc/updated.env",
		"--working-directory=/srv", "--user=nobody", "-pMemoryMax=1G", "-pNice=5", "--strategy=round-robin", "--drain-timeout=20s",
		"--start-timeout=1min", "--", server, "an argument")
	s.awaitUp(t, "updated", 2)
	running := s.invocations(t, append(appUnits("updated"), unitsOf("updated", 1, 2)...)...)
	tests := []struct {
		args      []string
		gone, new []string // lines of the settings
		kept      []string // files that must not be written
	}{
		{[]string{"--drain-timeout=10s"}, []string{"DrainTimeoutSec=20s"}, []string{"DrainTimeoutSec=10s"}, []string{".socket", "@.socket", "-join@.service"}},
		{[]string{"--env=C=3"}, []string{`Environment="A=$x %i"`, "Environment=B=2"}, []string{"Environment=C=3"}, []string{".socket", "@.socket"}},
		{[]string{"-pNice=6"}, []string{"Property=MemoryMax=1G", "Property=Nice=5"}, []string{"Property=Nice=6"}, []string{".socket", "@.socket"}},
		{[]string{"--user="}, []string{"User=nobody"}, nil, []string{".socket", "@.socket"}},
		{[]string{"--", server, "other"}, []string{`Command=` + server + ` "an argument"`}, []string{"Command=" + server + " other"}, []string{".socket", "@.socket"}},
		{[]string{"--instances=2"}, nil, nil, []string{".service", ".socket", "@.service", "@.socket"}},
	}
	for _, tt := range tests {
		want := slices.DeleteFunc(s.settingsOf(t, "updated"), func(line string) bool { return slices.Contains(tt.gone, line) })
		before := s.describe(t, "updated", tt.kept)
		s.unitgen(t, append([]string{"updated"}, tt.args...)...)
		got := slices.DeleteFunc(s.settingsOf(t, "updated"), func(line string) bool { return slices.Contains(tt.new, line) })
		if !slices.Equal(got, want) || len(s.settingsOf(t, "updated")) != len(want)+len(tt.new) {
			t.Errorf("settings after %q: %q without the new ones, want %q", tt.args, got, want)
		}
		if after := s.describe(t, "updated", tt.kept); after != before {
			t.Errorf("files after %q:\n%sbefore\n%s", tt.args, after, before)
		}
	}
	if now := s.invocations(t, append(appUnits("updated"), unitsOf("updated", 1, 2)...)...); now != running {
		t.Errorf("units:\n%sbefore\n%s", now, running)
	}
	s.MustExec(t, "systemctl", "restart", "updated")
	s.awaitUp(t, "updated", 2)
	pid := s.MustShow(t, "updated@1.service", "MainPID")
	environ := s.MustExec(t, "cat", "/proc/"+pid+"/environ")
	for _, want := range []string{"C=3\x00", "FROM_FILE=1\x00"} {
		if !strings.Contains(environ, want) {
			t.Errorf("environment after restart = %q, want %q in it", environ, want)
		}
	}
	if cwd := s.MustExec(t, "readlink", "/proc/"+pid+"/cwd"); cwd != "/srv\n" {
		t.Errorf("working directory after restart = %q, want /srv", cwd)
	}
}

// describe describes unit files of an app, given without its name.
func (s *system) describe(t *testing.T, name string, endings []string) string {
	t.Helper()
	args := []string{"stat", "--format=%n %i %y %s"}
	for _, ending := range endings {
		args = append(args, units+"/"+name+ending)
	}
	return s.MustExec(t, args...)
}

// testListen changes the listeners of a live app: it serves on the new ones alone, and at no time
// has PID 1 seen the sockets of a running unit change.
func testListen(t *testing.T, s *system) {
	first, second, third := s.newPort(), s.newPort(), s.newPort()
	s.removeLater(t, "moved")
	s.unitgen(t, "moved", "--instances=3", "--now", listenOption(first), "--", server)
	s.awaitUp(t, "moved", 3)
	for _, step := range []struct{ open, closed []int }{
		{[]int{second}, []int{first, third}},
		{[]int{second, third}, []int{first}},
		{[]int{first}, []int{second, third}},
	} {
		args := []string{"moved"}
		for _, port := range step.open {
			args = append(args, listenOption(port))
		}
		s.unitgen(t, args...)
		s.awaitUp(t, "moved", 3)
		for _, port := range step.open {
			if text := s.get(t, port); !strings.HasPrefix(text, "instance=") {
				t.Errorf("port %d answers %q", port, text)
			}
			if list := s.listeners(t, port); strings.Count(list, "\n") != 4 {
				t.Errorf("listeners on %d:\n%swant those of 3 instances and the parking listener", port, list)
			}
		}
		for _, port := range step.closed {
			if list := s.listeners(t, port); list != "" {
				t.Errorf("listeners on %d, which %q has not:\n%s", port, args, list)
			}
		}
	}
	// The port at another address, while the app itself is what listens there.
	for _, address := range []string{"127.0.0.1", "0.0.0.0"} {
		s.unitgen(t, "moved", fmt.Sprintf("--listen=%s:%d", address, first))
		s.awaitUp(t, "moved", 3)
		if list := s.listeners(t, first); strings.Count(list, fmt.Sprintf(" %s:%d ", address, first)) != 4 {
			t.Errorf("listeners on %d:\n%swant 4 at %s", first, list, address)
		}
	}
	journal, err := s.Journal(t.Context(), "moved*")
	if err != nil || strings.Contains(journal, "has changed while unit has been running") || strings.Contains(journal, "Failed with result") {
		t.Errorf("%v; the sockets changed under a running unit, or a unit failed:\n%s", err, journal)
	}
}

// testListenIdle changes the port of an app of which the parking listener alone is there.
func testListenIdle(t *testing.T, s *system) {
	first, second := s.newPort(), s.newPort()
	s.removeLater(t, "idle")
	s.unitgen(t, "idle", listenOption(first), "--", server)
	s.MustExec(t, "systemctl", "start", "idle.socket")
	s.unitgen(t, "idle", listenOption(second))
	if got := s.MustShow(t, "idle.service", "ActiveState"); got != "inactive" {
		t.Errorf("the shim is %s before the first connection", got)
	}
	if list := s.listeners(t, first); list != "" {
		t.Errorf("listeners on the old port:\n%s", list)
	}
	if text := s.get(t, second); !strings.HasPrefix(text, "instance=1 ") {
		t.Errorf("the new port answers %q", text)
	}
	if journal, err := s.Journal(t.Context(), "idle*"); err != nil || strings.Contains(journal, "has changed while unit has been running") {
		t.Errorf("%v; the socket changed under a running unit:\n%s", err, journal)
	}
}

// testDropIns has drop-ins, and instances that were enabled by hand, live through changes and
// removal.
func testDropIns(t *testing.T, s *system) {
	port := s.newPort()
	s.removeLater(t, "dropped")
	s.unitgen(t, "dropped", listenOption(port), "--", server)
	for _, unit := range []string{"dropped.service", "dropped@.service", "dropped@2.service"} {
		s.MustWriteFile(t, units+"/"+unit+".d/mine.conf", "[Service]\nNice=7\n", 0o644)
	}
	before := s.tree(t, units+"/dropped.service.d", units+"/dropped@.service.d", units+"/dropped@2.service.d")
	s.MustExec(t, "systemctl", "enable", "dropped@5")
	s.unitgen(t, "dropped", "--now", "--instances=3", "--env=A=1")
	s.MustWait(t, limit, "dropped.service", func(p rig.Properties) bool { return strings.HasPrefix(p["StatusText"], "3/3 ") })
	if links := s.MustExec(t, "ls", units+"/dropped.service.wants"); links != "dropped@1.service\ndropped@2.service\ndropped@5.service\n" {
		t.Errorf("instances = %q, want 1, 2 and the one that was enabled by hand", links)
	}
	if nice := s.MustShow(t, "dropped@5.service", "Nice"); nice != "7" {
		t.Errorf("Nice= of an instance = %s, want 7, by the drop-in", nice)
	}
	s.unitgen(t, "remove", "dropped")
	if after := s.tree(t, units+"/dropped.service.d", units+"/dropped@.service.d", units+"/dropped@2.service.d"); after != before {
		t.Errorf("drop-ins:\n%s\nbefore\n%s", after, before)
	}
}

// testForeign meets units of others where those of an app would go: each is left alone.
func testForeign(t *testing.T, s *system) {
	const unit = "[Service]\nExecStart=/bin/sleep infinity\n"
	port := listenOption(s.newPort())
	tests := []struct {
		name  string
		setup string // commands, $1 is the name
		line  string
	}{
		{"foreign-service", `printf '` + unit + `' >$1.service`, `/etc/systemd/system/foreign-service\.service was not written by unitgen`},
		{"foreign-template", `printf '` + unit + `' >$1@.service`, `/etc/systemd/system/foreign-template@\.service was not written by unitgen`},
		{"foreign-socket", `printf '[Socket]\nListenStream=1\n' >$1@.socket`, `/etc/systemd/system/foreign-socket@\.socket was not written by unitgen`},
		{"foreign-empty", `>$1.socket`, `/etc/systemd/system/foreign-empty\.socket `}, // systemd takes it for masked
		{"foreign-masked", `systemctl mask $1.service 2>/dev/null`, `/etc/systemd/system/foreign-masked\.service is masked`},
		{"foreign-linked", `printf '` + unit + `' >/srv/$1.service; systemctl link /srv/$1.service 2>/dev/null`, `/etc/systemd/system/foreign-linked\.service is not a file of unitgen's`},
		{"foreign-directory", `mkdir $1.service`, `/etc/systemd/system/foreign-directory\.service is not a file`},
		{"foreign-runtime", `printf '` + unit + `' >/run/systemd/system/$1.service`, `/run/systemd/system/foreign-runtime\.service exists: the name`},
		{"foreign-masked-runtime", `systemctl mask --runtime $1.service 2>/dev/null`, `/run/systemd/system/foreign-masked-runtime\.service exists: the name`},
		{"foreign-transient", `systemd-run --quiet --unit=$1 sleep infinity`, `/run/systemd/transient/foreign-transient\.service exists: the name`},
		{"foreign-generated", `printf '` + unit + `' >/run/systemd/generator/$1.service`, `/run/systemd/generator/foreign-generated\.service exists: the name`},
		{"dbus", "", `/(usr/)?lib/systemd/system/dbus\.service exists: the name "dbus" is taken`},
		{"getty", "", `/(usr/)?lib/systemd/system/getty@\.service exists: the name "getty" is taken`},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if tt.setup != "" {
				const undo = `systemctl stop "$1.*"; for dir in /etc/systemd/system /run/systemd/system /run/systemd/generator /srv; do rm -rf "$dir/$1"[.@]*; done
					systemctl daemon-reload`
				s.later(t, "sh", "-c", undo, "sh", tt.name)
				s.MustExec(t, "sh", "-c", "cd /etc/systemd/system; mkdir -p /run/systemd/generator; "+tt.setup, "sh", tt.name)
			}
			s.refused(t, 2, []string{tt.line}, tt.name, port, "--now", "--", server)
			s.refused(t, 2, []string{`there is no app|` + tt.line}, "remove", tt.name)
		})
	}
}
