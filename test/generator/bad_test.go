//go:build integration

package generator

import (
	"fmt"
	"slices"
	"strings"
	"testing"
)

// testBadInput gives unitgen what the user can mend: one line for each thing, at most one hint,
// status 2, nothing written.
func testBadInput(t *testing.T, s *system) {
	used, free := s.newPort(), listenOption(s.newPort())
	s.later(t, "systemctl", "stop", "squatter.socket")
	s.MustExec(t, "systemd-run", "--quiet", "--unit=squatter", fmt.Sprintf("--socket-property=ListenStream=%d", used), "/bin/true")
	s.MustExec(t, "sh", "-c", `cd /srv && mkdir -p dir && touch plain && printf '#!/nowhere/sh\n' >script && printf '#!/usr/bin/env nosuchprogram\n' >envscript &&
		chmod +x script envscript && mkfifo -m 755 pipe`)
	tests := slices.Concat(badNames(free), badNumbers(free), badListeners(used), badCommands(free), badOptions(free, used))
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) { s.refused(t, 2, tt.lines, tt.args...) })
	}
}

// badInput is a command line that must be refused, with patterns of the lines that say why.
type badInput struct {
	name  string
	args  []string
	lines []string
}

func badNames(free string) []badInput {
	good := []string{free, "--", server}
	return []badInput{
		{"slash", append([]string{"a/b"}, good...), []string{`the app's name must consist of letters`}},
		{"at", append([]string{"a@b"}, good...), []string{`the app's name must consist of letters`}},
		{"blank", append([]string{"a b"}, good...), []string{`the app's name must consist of letters`}},
		{"newline", append([]string{"a\nb"}, good...), []string{`the app's name must consist of letters`}},
		{"long", append([]string{strings.Repeat("a", 256)}, good...), []string{`the app's name must have at most \d+ bytes, got 256`}},
		{"dot", append([]string{".a"}, good...), []string{`the app's name must not begin with "\."`}},
		{"dots", append([]string{".."}, good...), []string{`the app's name must not begin with "\."`}},
		{"suffix", append([]string{"a.service"}, good...), []string{`the app's name must be written without "\.service"`}},
		{"empty", append([]string{""}, good...), []string{`the app's name`}},
		{"no name", good, []string{`the app's name is missing`}},
		{"reserved", append([]string{"list"}, good...), []string{`--listen does not go with list`, `list takes no command`}},
		{"to come", append([]string{"handover"}, good...), []string{`"handover" is a verb of unitgen`}},
	}
}

func badNumbers(free string) []badInput {
	app := func(args ...string) []string { return append(append([]string{"bad"}, args...), free, "--", server) }
	return []badInput{
		{"0", app("--instances=0"), []string{`--instances= must be between 1 and 512, got 0`}},
		{"513", app("--instances=513"), []string{`--instances= must be between 1 and 512, got 513`}},
		{"-1", app("-n", "-1"), []string{`--instances=-1 of 0 would be -1`}},
		{"1e3", app("--instances=1e3"), []string{`--instances= must be a number, \+N, -N or max, got "1e3"`}},
		{"many", app("--instances=many"), []string{`--instances= must be a number`}},
		{"none", app("--instances="), []string{`--instances= must be a number`}},
		{"huge", app("--instances=99999999999999999999"), []string{`--instances= must be `}},
	}
}

func badListeners(used int) []badInput {
	return []badInput{
		{"port in use", []string{"bad", listenOption(used), "--", server}, []string{fmt.Sprintf(`--listen=%d is in use by another program`, used)}},
		{"address in use", []string{"bad", fmt.Sprintf("--listen=127.0.0.1:%d", used), "--now", "--", server}, []string{fmt.Sprintf(`--listen=127\.0\.0\.1:%d is in use by another program`, used)}},
		{"low port", []string{"bad", "--user-units", "--listen=80", "--", server}, []string{`--listen=80 is a port below 1024`}},
		{"port 0", []string{"bad", "--listen=0", "--", server}, []string{`--listen= must be PORT`}},
		{"port 65536", []string{"bad", "--listen=65536", "--", server}, []string{`--listen= must be PORT`}},
		{"host", []string{"bad", "--listen=localhost:3000", "--", server}, []string{`--listen= takes addresses, not names`}},
		{"no port", []string{"bad", "--", server}, []string{`--listen= is missing`}},
	}
}

func badCommands(free string) []badInput {
	command := func(argv ...string) []string { return append([]string{"bad", free, "--"}, argv...) }
	return []badInput{
		{"no command", command(), []string{`the command after "--" is empty`}},
		{"empty command", command(""), []string{`the command must not be empty`}},
		{"missing", command("/srv/missing"), []string{`the command "/srv/missing" does not exist`}},
		{"not in PATH", command("nosuchprogram"), []string{`the command "nosuchprogram" is not in \$PATH`}},
		{"not executable", command("/srv/plain"), []string{`the command "/srv/plain" is not executable`}},
		{"directory", command("/srv/dir"), []string{`the command "/srv/dir" is a directory`}},
		{"pipe", command("/srv/pipe"), []string{`the command "/srv/pipe" is not a regular file`}},
		{"below a file", command("/srv/plain/x"), []string{`the command "/srv/plain/x" `}},
		{"interpreter", command("/srv/script"), []string{`the command "/srv/script" is a script for "/nowhere/sh", which does not exist`}},
		{"env", command("/srv/envscript"), []string{`the command "/srv/envscript" is a script for "nosuchprogram"`}},
		{"app", []string{"nosuchprogram"}, []string{`there is no app "nosuchprogram", and \$PATH has no program`, `--listen= is missing`}},
	}
}

func badOptions(free string, used int) []badInput {
	app := func(args ...string) []string { return append(append([]string{"bad"}, args...), free, "--", server) }
	return []badInput{
		{"old", app("--systemd-version=247"), []string{`--systemd-version= must be at least 252, got 247`}},
		{"directory missing", app("--working-directory=/srv/missing"), []string{`--working-directory= must be a directory that exists`}},
		{"file missing", app("--env-file=/srv/missing"), []string{`--env-file= must name a file that exists`}},
		{"property", app("-p", "Wants=x"), []string{`--property=Wants= is not a setting of section \[Service\]`}},
		{"property value", app("-p", "Nice=999", "-p", "MemroyMax=1G"), []string{`--property=Nice=999 is not understood by systemd: Nice priority out of range`,
			`--property=MemroyMax=1G is not understood by systemd: Unknown key`}},
		{"property line", app("-p", "Nice=1\nUser=root"), []string{`--property=Nice= must not contain a line break`}},
		{"user missing", app("--user=nosuchuser"), []string{`--user= must be a user who exists, got "nosuchuser"`}},
		{"file in the way", []string{"bad", "--listen=/srv/plain", "--", server}, []string{`--listen=/srv/plain exists and is no socket: systemd would delete it`}},
		{"option", app("--bogus"), []string{`unknown flag: --bogus`}},
		{"all at once", []string{"bad", "--instances=0", listenOption(used), "--env=1=2", "--kind=none", "--", "/srv/dir"},
			[]string{`--instances= `, `the command "/srv/dir"`, `--env= `, `--kind=`}},
	}
}

// testBadSettings spoils the section [X-Unitgen] of an app: what cannot be read is neither guessed
// nor overwritten.
func testBadSettings(t *testing.T, s *system) {
	s.removeLater(t, "spoilt")
	port := s.newPort()
	s.unitgen(t, "spoilt", listenOption(port), "--now", "--", server)
	s.awaitUp(t, "spoilt", 1)
	const file = units + "/spoilt.service"
	text, err := s.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	before, section, _ := strings.Cut(string(text), "[X-Unitgen]\n")
	tests := []struct{ name, section, line string }{
		{"missing", "", `.*: no section \[X-Unitgen\]`},
		{"empty", "[X-Unitgen]\n", `.*has no Command=`},
		{"cut off", "[X-Unitgen]\n" + section[:strings.Index(section, "Command=")+len("Command=")], `.*: line \d+: Command=`},
		{"listen", "[X-Unitgen]\n" + strings.Replace(section, "Listen=", "Listen=x", 1), `.*: line \d+: Listen=`},
		{"key", "[X-Unitgen]\nBogus=1\n" + section, `.*: line \d+: Bogus=.*unknown key`},
		{"quotes", "[X-Unitgen]\n" + strings.Replace(section, "Command=", `Command="`, 1), `.*: line \d+: Command=`},
		{"version", "[X-Unitgen]\n" + strings.Replace(section, "Version=1", "Version=99", 1), `.*: line \d+: Version=`},
		{"bytes", "[X-Unitgen]\n\x01\xff\n" + section, `.*: line \d+: `},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			s.MustWriteFile(t, file, before+tt.section, 0o644)
			read := `read /etc/systemd/system/spoilt\.service` + tt.line
			s.refused(t, 1, []string{read}, "spoilt", "--instances=2")
			s.refused(t, 1, []string{read}, "scale", "spoilt", "2")
			s.refused(t, 1, []string{read}, "diff", "spoilt", "--instances=2")
		})
	}
	s.MustWriteFile(t, file, before+"[X-Unitgen]\nBogus=1\n", 0o644)
	if list := s.unitgen(t, "list", "--no-legend").Stdout; !strings.HasPrefix(list, "spoilt") || !strings.Contains(list, "unreadable") {
		t.Errorf("list = %q, want the app as unreadable", list)
	}
	if text := s.get(t, port); !strings.HasPrefix(text, "instance=1 ") {
		t.Errorf("the app answers %q", text)
	}
	s.unitgen(t, "remove", "spoilt")
	s.checkGone(t, "spoilt", port)
}

// Commands that run a script in a mount namespace of its own and then the arguments as a command.
func inNamespace(script string) []string {
	return []string{"unshare", "--mount", "--propagation=private", "--", "sh", "-ec", script + `; exec "$@"`, "sh"}
}

// testBadDisk runs unitgen where it cannot write or read: status 1, the reason, and not a trace of
// the attempt.
func testBadDisk(t *testing.T, s *system) {
	nobody := []string{"setpriv", "--reuid=nobody", "--regid=nogroup", "--clear-groups", "--"}
	port := listenOption(s.newPort())
	tests := []struct {
		name   string
		prefix []string
		line   string
	}{
		{"not root", nobody, `write to /etc/systemd/system: permission denied`},
		{"read-only", inNamespace("mount --bind /etc/systemd/system /etc/systemd/system; mount -o remount,bind,ro /etc/systemd/system"), `.*read-only file system`},
		{"lock read-only", inNamespace("mount --bind /run /run; mount -o remount,bind,ro /run"), `.*read-only file system`},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			s.refusedBy(t, tt.prefix, 1, []string{tt.line}, "disk", "--instances=3", port, "--", server)
		})
	}
	t.Run("unreadable", func(t *testing.T) {
		prefix := append(inNamespace("mount -t tmpfs -o mode=700 tmpfs /etc/systemd/system"), nobody...)
		for _, args := range [][]string{{"disk", port, "--dry-run", "--", server}, {"disk", port, "--", server}, {"list"}, {"status", "disk"}, {"diff", "disk", port, "--", server}} {
			s.refusedBy(t, prefix, 1, []string{`.*permission denied`}, args...)
		}
	})
	t.Run("running", func(t *testing.T) {
		s.removeLater(t, "stays")
		s.unitgen(t, "stays", "--now", "--instances=2", listenOption(s.newPort()), "--", server)
		s.awaitUp(t, "stays", 2)
		before := s.invocations(t, append(appUnits("stays"), unitsOf("stays", 1, 2)...)...)
		for _, args := range [][]string{{"remove", "stays"}, {"stays", listenOption(s.newPort())}} {
			s.refusedBy(t, tests[1].prefix, 1, []string{`.*read-only file system`}, args...)
		}
		if after := s.invocations(t, append(appUnits("stays"), unitsOf("stays", 1, 2)...)...); after != before {
			t.Errorf("what could not be written was stopped:\n%s\nbefore\n%s", after, before)
		}
	})
	t.Run("full", func(t *testing.T) { s.checkFullDisk(t, port) })
}

// checkFullDisk gives unitgen a disk with room for nothing, for some files, and at last for all.
func (s *system) checkFullDisk(t *testing.T, port string) {
	full := 0
	for size := 4; ; size += 8 {
		if size > 100 {
			t.Fatal("it never fitted")
		}
		// 7 files of a page each; what the test says about the disk comes from the same namespace,
		// behind a marker.
		script := fmt.Sprintf(`mount -t tmpfs -o size=%dk tmpfs /etc/systemd/system; mkdir /etc/systemd/system/mine; touch /etc/systemd/system/mine/file
			find /etc/systemd/system ! -type d -printf '%%p %%i %%T@\n'; echo --; status=0; unitgen "$@" || status=$?
			find /etc/systemd/system ! -type d -printf '%%p %%i %%T@\n'; ls -A /etc/systemd/system; exit $status`, size)
		out := s.run(t, "unshare", "--mount", "--propagation=private", "--", "sh", "-ec", script, "sh", "disk", "--instances=3", port, "--", server)
		if out.Status == 0 {
			break
		}
		full++
		before, after, _ := strings.Cut(out.Stdout, "--\n")
		if after != before+"mine\n" {
			t.Errorf("%d kB: the disk has\n%sbefore\n%s", size, after, before)
		}
		out.Stdout = ""
		checkRefusal(t, out, 1, []string{`write /etc/systemd/system/disk.*: no space left on device`}, []string{"disk"})
		if !strings.Contains(out.Stderr, "hint: nothing was changed; make room") {
			t.Errorf("says %q", out.Stderr)
		}
	}
	if full < 2 {
		t.Errorf("the disk was full %d times only", full)
	}
	s.MustExec(t, "systemctl", "daemon-reload") // the last one has told PID 1
}

// testNoSystemd runs unitgen where no systemd is, or none that answers.
func testNoSystemd(t *testing.T, s *system) {
	port := listenOption(s.newPort())
	none := inNamespace("mount -t tmpfs tmpfs /run")
	for _, args := range [][]string{{"lost", port, "--", server}, {"lost", port, "--now", "--", server}, {"lost", "--user-units", port, "--", server}} {
		s.refusedBy(t, none, 1, []string{`systemd does not run here`}, args...)
	}
	s.refusedBy(t, none, 2, []string{`there is no app "lost"`}, "remove", "lost")
	for _, args := range [][]string{{"lost", port, "--dry-run", "--", server}, {"list"}, {"lost", port, "--output=/srv/lost", "--", server}} {
		if out := s.run(t, append(append(none, "unitgen"), args...)...); out.Status != 0 {
			t.Errorf("unitgen %q without systemd = %+v", args, out)
		}
	}
	silent := inNamespace("mount -t tmpfs tmpfs /run/dbus; rm -rf /run/nothing; mkdir /run/nothing; touch /run/nothing/private; mount --bind /run/nothing/private /run/systemd/private")
	for _, args := range [][]string{{"lost", port, "--", server}, {"list"}} {
		s.refusedBy(t, silent, 1, []string{`connect to systemd: .*connection refused.*`}, args...)
	}
	s.refused(t, 1, []string{`XDG_RUNTIME_DIR is not set`}, "lost", "--user-units", port, "--", server)
	uninstalled := inNamespace("mount -t tmpfs tmpfs /usr/lib/unitgen")
	s.refusedBy(t, uninstalled, 1, []string{`find /usr/lib/unitgen/lbshim: it is not installed`}, "lost", port, "--", server)
}
