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
	"github.com/unitgen/unitgen/internal/needs"
)

// completed is what can stand in place of the last of words: the words, what each means, and what
// the shell does beside.
func completed(t *testing.T, e *env, words ...string) (found []string, about map[string]string, directive string) {
	t.Helper()
	var out bytes.Buffer
	e.args, e.stdout, e.stderr = append([]string{"__complete"}, words...), &out, new(bytes.Buffer)
	if status := run(t.Context(), e); status != exitSuccess {
		t.Fatalf("%q: status %d, %s", words, status, e.stderr)
	}
	lines := strings.Split(strings.TrimSuffix(out.String(), "\n"), "\n")
	about = make(map[string]string)
	for _, line := range lines[:len(lines)-1] {
		word, text, _ := strings.Cut(line, "\t")
		found, about[word] = append(found, word), text
	}
	return found, about, lines[len(lines)-1]
}

// Every option of every verb is completed, and no other.
func TestCompleteOptions(t *testing.T) {
	all := make(map[string]bool)
	for _, v := range verbs() {
		words := []string{"--"}
		if v.name != "" {
			words = []string{v.name, "--"}
		}
		found, about, _ := completed(t, scriptEnv(), words...)
		for _, word := range found {
			name := strings.TrimPrefix(word, "--")
			all[name] = true
			if !v.has(name) {
				t.Errorf("%q completes --%s, which it does not take", v.name, name)
			}
			if about[word] == "" {
				t.Errorf("--%s has no meaning", name)
			}
		}
		for _, name := range v.takes {
			if !slices.Contains(found, "--"+name) {
				t.Errorf("%q takes --%s, which is not completed", v.name, name)
			}
		}
	}
	new(options).flags().VisitAll(func(f *pflag.Flag) {
		if !all[f.Name] && !f.Hidden {
			t.Errorf("--%s is not completed", f.Name)
		}
	})
}

// Values that are completed are values that unitgen takes.
func TestCompleteValues(t *testing.T) {
	for option, kind := range map[string]string{"kind": "bind", "path": "listen", "strategy": "bind", "ready": "node", "shutdown": "bind", "messages": "bind",
		"shutdown-message": "node", "surge": "bind", "json": "", "pin": "bind"} {
		values, _, _ := completed(t, scriptEnv(), "app", "--"+option+"=")
		if option == "json" {
			values, _, _ = completed(t, scriptEnv(), "list", "--json=")
		}
		if len(values) < 1 {
			t.Errorf("--%s has no values", option)
		}
		for _, value := range values {
			if option == "pin" && value == "yes" {
				continue // not with --output=
			}
			e := scriptEnv()
			e.args = []string{"app", "--output=" + t.TempDir(), "--listen=3000", "--dry-run", "--kind=" + kind, "--" + option + "=" + value, "--", "/bin/true"}
			if option == "json" {
				e.args = []string{"list", "--json=" + value}
			}
			var talk bytes.Buffer
			e.stdout, e.stderr = &talk, &talk
			if status := run(t.Context(), e); status != exitSuccess {
				t.Errorf("--%s=%s: %s", option, value, talk.String())
			}
		}
	}
}

func TestComplete(t *testing.T) {
	dir := t.TempDir()
	for name, mode := range map[string]os.FileMode{"bin/node": 0o755, "bin/notes": 0o644, "root/etc/passwd": 0o644} {
		file := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, []byte("alice:x:\nbob:x:\n"), mode); err != nil {
			t.Fatal(err)
		}
	}
	writeApp(t, dir+"/root", "hello", 2)
	for line, want := range map[string]string{
		"":                    "check completion diff doctor drain export help import list logs reload remove restart scale send start status stop top undrain hello :4",
		"s":                   "scale send start status stop hello :4", // the shell takes what begins so
		"./":                  ":0",
		"--kind=":             "bind listen node handoff :4",
		"--kind ":             "bind listen node handoff :4",
		"app -n ":             "max :4",
		"app --use":           "--user --user-per-instance --user-units :4",
		"app --user ":         "alice bob :4",
		"app --now --no":      ":4",
		"app --env A=1 --env": "--env --env-file :4",
		"app --env-file ":     ":0",
		"--file ":             "unitgen :8",
		"check ":              "unitgen :8",
		"app --output ":       ":16",
		"app -- no":           "node :0",
		"app -- node ":        ":0",
		"app -- node --":      ":0",
		"status ":             "hello :4",
		"status hello ":       ":4",
		"scale --user-units ": ":4",
		"scale hello ":        "max +1 -1 :4",
		"logs hello@":         "hello hello@1 hello@2 :4",
		"list --j":            "--json :4",
		"list ":               ":4",
		"list --kind ":        ":4",
		"list --watch ":       ":4",
		"list --sort ":        "name state cpu memory connections rate restarts uptime :4",
		"completion ":         "bash zsh fish :4",
		"export ":             "haproxy nginx caddy keepalived ansible :4",
		"export haproxy ":     "hello :4",
	} {
		e := scriptEnv()
		e.cwd, e.root = dir, dir+"/root"
		e.getenv = func(key string) string { return map[string]string{"PATH": dir + "/bin"}[key] }
		found, _, directive := completed(t, e, strings.Split(line, " ")...)
		if got := strings.Join(append(found, directive), " "); got != want {
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

const bashCompletion = "/usr/share/bash-completion/bash_completion"

// The real shells, on a terminal: what is typed, with the tab key, and what the shell makes of it.
func TestShells(t *testing.T) {
	root := t.TempDir()
	writeApp(t, root, "hello", 1)
	if err := os.WriteFile(root+"/my shop.unitgen", nil, 0o600); err != nil {
		t.Fatal(err)
	}
	typed := []struct{ keys, want string }{
		{"unitgen app --strat\tfi\t -- x", "<app><--strategy><first><--><x>"},
		{"unitgen app --ki\tnod\t --now", "<app><--kind><node><--now>"},
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
			needs.Program(t, shell, shell)
			if _, err := os.Stat(bashCompletion); err != nil && shell == "bash" {
				needs.Missing(t, "bash-completion is not installed: apt install bash-completion")
			}
			script := filepath.Join(t.TempDir(), shell)
			writeCompletion(t, script, shell)
			term := openTerminal(t, root, start)
			// The function stands for the command that is typed; what the completion asks goes to
			// the program. The prompt is written so that the echo of this line is not taken for
			// one.
			setup := "unitgen() { [ \"$1\" = __complete ] && { command unitgen \"$@\"; return; }; printf '<%s>' \"$@\"; echo .END; }; . '" + script + "'; PS1='go''> '\n"
			switch shell {
			case "bash":
				setup = ". " + bashCompletion + "; " + setup
			case "zsh":
				setup = "autoload -U compinit && compinit -D -u; " + setup
			case "fish":
				setup = "function unitgen; if test $argv[1] = __complete; command unitgen $argv; return; end; printf '<%s>' $argv; echo .END; end; " +
					"source '" + script + "'; function fish_prompt; echo -n 'go''> '; end\n"
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

// writeCompletion writes the script of a shell, as make install does.
func writeCompletion(t *testing.T, file, shell string) {
	t.Helper()
	var script bytes.Buffer
	e := scriptEnv()
	e.args, e.stdout = []string{"completion", shell}, &script
	if status := run(t.Context(), e); status != exitSuccess {
		t.Fatal(status)
	}
	if err := os.WriteFile(file, script.Bytes(), 0o600); err != nil {
		t.Fatal(err)
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
		needs.Missing(t, "%v", err)
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
	kill := time.AfterFunc(2*time.Minute, func() { cmd.Process.Kill() })
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
