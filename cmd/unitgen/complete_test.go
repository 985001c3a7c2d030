package main

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/spf13/pflag"
	"golang.org/x/sys/unix"

	"github.com/unitgen/unitgen/internal/app"
)

// Every option of every verb is completed, and no other.
func TestCompleteOptions(t *testing.T) {
	all := make(map[string]bool)
	for _, verb := range append([]string{""}, verbs()...) {
		words := []string{"--"}
		if verb != "" {
			words = []string{verb, "--"}
		}
		names, _ := takes(verb)
		for _, c := range complete(scriptEnv(), words) {
			name := strings.Trim(c.word, "-=")
			all[name] = true
			if name != "help" && !slices.Contains(names, name) {
				t.Errorf("%q completes --%s, which it does not take", verb, name)
			}
			if c.about == "" {
				t.Errorf("--%s has no meaning", name)
			}
		}
	}
	new(options).flags().VisitAll(func(f *pflag.Flag) {
		if !all[f.Name] && f.Name != "version" && !f.Hidden {
			t.Errorf("--%s is not completed", f.Name)
		}
	})
}

func verbs() []string {
	var names []string
	for _, c := range verbWords() {
		names = append(names, c.word)
	}
	return names
}

// Values that are completed are values that unitgen takes.
func TestCompleteValues(t *testing.T) {
	c := &command{env: scriptEnv(), options: &options{}}
	for _, option := range []string{"kind", "path", "strategy", "ready", "shutdown", "messages", "shutdown-message", "surge", "json", "pin"} {
		values := c.values(option, "", "")
		if len(values) == 0 {
			t.Errorf("--%s has no values", option)
		}
		for _, v := range values {
			e := scriptEnv()
			e.args = []string{"app", "--output=" + t.TempDir(), "--listen=3000", "--dry-run", "--" + option + "=" + v.word, "--", "/bin/true"}
			if option == "json" {
				e.args = []string{"list", "--json=" + v.word}
			}
			if v.word == app.ReadyMessage || option == "shutdown-message" {
				e.args = slices.Insert(e.args, 1, "--kind=node")
			}
			if option == "pin" && v.word == "yes" {
				continue // not with --output=
			}
			var talk bytes.Buffer
			e.stdout, e.stderr = &talk, &talk
			if status := run(t.Context(), e); status != exitSuccess {
				t.Errorf("--%s=%s: %s", option, v.word, talk.String())
			}
		}
	}
}

func TestComplete(t *testing.T) {
	dir := t.TempDir()
	for name, mode := range map[string]os.FileMode{"bin/node": 0o755, "bin/notes": 0o644, "shop.unitgen": 0o644, "run.sh": 0o755, "root/etc/passwd": 0o644} {
		file := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, []byte("alice:x:\nbob:x:\n"), mode); err != nil {
			t.Fatal(err)
		}
	}
	e := scriptEnv()
	e.cwd, e.root, e.stderr = dir, dir+"/root", new(bytes.Buffer)
	e.getenv = func(key string) string { return map[string]string{"PATH": dir + "/bin"}[key] }
	writeApp(t, dir+"/root", "hello", 2)
	for line, want := range map[string]string{
		"":                         "list status scale logs diff send check import remove doctor completion help hello",
		"s":                        "status scale send",
		"d":                        "diff doctor",
		"./":                       "./bin/ ./root/ ./run.sh",
		"--kind=":                  "--kind=bind --kind=listen --kind=node --kind=handoff",
		"--kind=n":                 "--kind=node",
		"--kind ":                  "bind listen node handoff",
		"app -n ":                  "max",
		"app --use":                "--user= --user-per-instance --user-units",
		"app --user a":             "alice",
		"app --now --no":           "",
		"app --env A=1 --e":        "--env= --env-file=",
		"--file ":                  "bin/ root/ shop.unitgen",
		"check ":                   "bin/ root/ shop.unitgen",
		"app --output=r":           "--output=root/",
		"app -- no":                "node",
		"app -- node ":             "bin/ root/ run.sh shop.unitgen",
		"app -- node --":           "",
		"status ":                  "hello",
		"status hello ":            "",
		"scale --user-units ":      "",
		"scale hello ":             "max +1 -1",
		"logs hello@":              "hello@1 hello@2",
		"logs ":                    "hello",
		"list --j":                 "--json=",
		"list ":                    "",
		"completion ":              "bash zsh fish",
		"--bogus --another=x --ki": "--kind=",
		"-":                        "",
	} {
		var got []string
		for _, c := range complete(e, strings.Split(line, " ")) {
			got = append(got, c.word)
		}
		if line == "-" {
			got = slices.DeleteFunc(got, func(w string) bool { return strings.HasPrefix(w, "--") })
		}
		if strings.Join(got, " ") != want {
			t.Errorf("%q: got %q, want %q", line, got, want)
		}
	}
}

// writeApp puts an app where those of a system are.
func writeApp(t *testing.T, root string, name app.Name, instances int) {
	t.Helper()
	e := scriptEnv()
	e.args = []string{string(name), "--output=" + root + "/etc/systemd/system", fmt.Sprintf("--instances=%d", instances), "--listen=3000", "--", "/bin/true"}
	e.stderr = new(bytes.Buffer)
	if status := run(t.Context(), e); status != exitSuccess {
		t.Fatal(status, e.stderr)
	}
}

func TestJoinBash(t *testing.T) {
	for words, want := range map[string]string{
		"--kind|=|no": "--kind=no/7", "--kind|=": "--kind=/7", "--kind|no": "--kind|no/0", "--listen|=|[::1]|:|3": "--listen=[::1]:3/15",
		"": "/0", "a|": "a|/0",
	} {
		joined, cut := joinBash(strings.Split(words, "|"))
		if got := fmt.Sprintf("%s/%d", strings.Join(joined, "|"), cut); got != want {
			t.Errorf("%q: got %s, want %s", words, got, want)
		}
	}
}

// The real shells, on a terminal: what is typed, with the tab key, and what the shell makes of it.
func TestShells(t *testing.T) {
	root := t.TempDir()
	writeApp(t, root, "hello", 1)
	if err := os.WriteFile(root+"/my shop.unitgen", nil, 0o600); err != nil {
		t.Fatal(err)
	}
	typed := []struct{ keys, want string }{
		{"unitgen app --strat\tfi\t -- x", "<app><--strategy=first><--><x>"},
		{"unitgen app --ki\tnod\t --now", "<app><--kind=node><--now>"},
		{"unitgen stat\thel\t", "<status><hello>"},
		{"unitgen logs hello@\t -- -f", "<logs><hello@1><--><-f>"},
		{"unitgen check my\t", "<check><my shop.unitgen>"},
	}
	for shell, start := range map[string][]string{
		"bash": {"bash", "--norc", "--noprofile", "-i"},
		"zsh":  {"zsh", "-f", "-i"},
		"fish": {"fish", "--no-config", "-i"},
	} {
		t.Run(shell, func(t *testing.T) {
			if _, err := exec.LookPath(shell); err != nil {
				if os.Getenv("UNITGEN_CI") == "1" {
					t.Fatalf("%s is not installed: apt install %s", shell, shell)
				}
				t.Skipf("%s is not installed", shell)
			}
			script, err := filepath.Abs("completion/unitgen." + shell)
			if err != nil {
				t.Fatal(err)
			}
			term := openTerminal(t, root, start)
			// The function stands for the command that is typed; the completion calls the program.
			// The prompt is written so that the echo of this line is not taken for one.
			setup := "unitgen() { printf '<%s>' \"$@\"; echo .END; }; . '" + script + "'; PS1='go''> '\n"
			switch shell {
			case "zsh":
				setup = "autoload -U compinit && compinit -D -u; " + setup
			case "fish":
				setup = "function unitgen; printf '<%s>' $argv; echo .END; end; source '" + script + "'; " +
					"function fish_prompt; echo -n 'go''> '; end\n"
			}
			term.send(t, setup)
			for _, line := range typed {
				term.await(t, "go> ")
				term.send(t, line.keys+"\n")
				term.await(t, line.want+".END\r\n")
			}
		})
	}
}

// terminal is a shell on a terminal of its own.
type terminal struct {
	master *os.File
	seen   bytes.Buffer // what came since the last await
}

func openTerminal(t *testing.T, root string, argv []string) *terminal {
	t.Helper()
	master, err := os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Skip(err)
	}
	fd := int(master.Fd()) // blocking from here on; a read ends when the shell does
	number, err := unix.IoctlGetInt(fd, unix.TIOCGPTN)
	if err == nil {
		err = unix.IoctlSetPointerInt(fd, unix.TIOCSPTLCK, 0)
	}
	if err == nil {
		err = unix.IoctlSetWinsize(fd, unix.TIOCSWINSZ, &unix.Winsize{Row: 50, Col: 200})
	}
	if err != nil {
		t.Fatal(err)
	}
	slave, err := os.OpenFile(fmt.Sprintf("/dev/pts/%d", number), os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(argv[0], argv[1:]...)
	cmd.Dir, cmd.Stdin, cmd.Stdout, cmd.Stderr = root, slave, slave, slave
	cmd.Env = append(os.Environ(), "ROOT="+root, "HOME="+root, "TERM=dumb", "INPUTRC=/dev/null", "LC_ALL=C.UTF-8")
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true}
	err = cmd.Start()
	slave.Close()
	if err != nil {
		t.Fatal(err)
	}
	kill := time.AfterFunc(4*time.Minute, func() { cmd.Process.Kill() })
	t.Cleanup(func() {
		kill.Stop()
		cmd.Process.Kill()
		cmd.Wait()
		master.Close()
	})
	return &terminal{master: master}
}

func (term *terminal) send(t *testing.T, keys string) {
	t.Helper()
	if _, err := term.master.WriteString(keys); err != nil {
		t.Fatal(err)
	}
}

// await reads until text has come.
func (term *terminal) await(t *testing.T, text string) {
	t.Helper()
	buf := make([]byte, 4096)
	for {
		if _, rest, ok := strings.Cut(term.seen.String(), text); ok {
			term.seen.Reset()
			term.seen.WriteString(rest)
			return
		}
		n, err := term.master.Read(buf)
		term.seen.Write(buf[:n])
		if err != nil {
			t.Fatalf("%v while waiting for %q, got\n%s", err, text, term.seen.String())
		}
	}
}
