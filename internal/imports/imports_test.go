package imports

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/coreos/go-systemd/v22/unit"

	"github.com/unitgen/unitgen/internal/app"
	"github.com/unitgen/unitgen/internal/needs"
)

// schema is every key of PM2 7.0.4, its aliases, and a value of each that is not the default.
var schema = []struct{ key, value string }{
	{"exec", `"b.js"`}, {"cmd", `"b.js"`}, {"command", `"b.js"`},
	{"name", `"b"`}, {"name_prefix", `"x-"`}, {"filter_env", `["A"]`}, {"namespace", `"shop"`}, {"install_url", `"http://x"`},
	{"cwd", `"/srv"`}, {"args", `["a"]`}, {"exec_interpreter", `"node"`}, {"interpreter", `"none"`}, {"node_args", `"--x"`},
	{"interpreterArgs", `["--x"]`}, {"interpreter_args", `"--x"`}, {"out_file", `"o"`}, {"out", `"o"`}, {"output", `"o"`}, {"out_log", `"o"`},
	{"error_file", `"e"`}, {"error", `"e"`}, {"err", `"e"`}, {"err_file", `"e"`}, {"err_log", `"e"`}, {"log_file", `"l"`}, {"log", `true`},
	{"disable_logs", `true`}, {"log_type", `"json"`}, {"log_date_format", `"YYYY"`}, {"time", `true`}, {"env", `{"A": "b"}`}, {"env_x", `{"A": "b"}`},
	{"max_memory_restart", `"300M"`}, {"pid_file", `"p"`}, {"pid", `"p"`}, {"restart_delay", `300`}, {"exp_backoff_restart_delay", `300`},
	{"source_map_support", `true`}, {"disable_source_map_support", `true`}, {"wait_ready", `true`}, {"instances", `2`}, {"kill_timeout", `3000`},
	{"shutdown_with_message", `true`}, {"listen_timeout", `3000`}, {"cron_restart", `"0 4 * * *"`}, {"cron", `"0 4 * * *"`}, {"merge_logs", `true`},
	{"combine_logs", `true`}, {"vizion", `false`}, {"autostart", `false`}, {"autorestart", `false`}, {"stop_exit_codes", `[1]`}, {"watch_delay", `100`},
	{"watch", `["b.js"]`}, {"ignore_watch", `["c"]`}, {"watch_options", `{}`}, {"min_uptime", `"10s"`}, {"max_restarts", `5`}, {"execute_command", `true`},
	{"exec_mode", `"cluster"`}, {"force", `true`}, {"append_env_to_name", `true`}, {"post_update", `["x"]`}, {"trace", `true`}, {"disable_trace", `true`},
	{"v8", `true`}, {"event_loop_inspector", `true`}, {"deep_monitoring", `true`}, {"increment_var", `"X"`}, {"instance_var", `"X"`}, {"pmx", `false`},
	{"automation", `false`}, {"treekill", `false`}, {"port", `3000`}, {"username", `"u"`}, {"uid", `"www-data"`}, {"user", `33`}, {"gid", `"www-data"`},
	{"windowsHide", `true`}, {"kill_retry_time", `100`}, {"write", `true`}, {"io", `{}`}, {"script", `"b.js"`},
}

// settings are the keys of schema that become settings; of the others the report has the reason.
const settings = `exec cmd command name name_prefix namespace cwd args exec_interpreter interpreter node_args interpreterArgs interpreter_args
	env max_memory_restart restart_delay exp_backoff_restart_delay source_map_support wait_ready instances kill_timeout shutdown_with_message
	listen_timeout cron_restart cron autorestart stop_exit_codes watch max_restarts port uid user gid script`

// Each key of PM2 becomes a setting, or the report says why it does not.
func TestEveryKeyOfPM2(t *testing.T) {
	known := make(map[string]bool)
	for _, s := range schema {
		known[pm2Name(s.key)] = true
		path := filepath.Join(t.TempDir(), "a.json")
		text := fmt.Sprintf(`{"script": "a.js", %q: %s}`, s.key, s.value)
		writeTestFile(t, path, text)
		m, err := Read(t.Context(), options(t, path))
		if err != nil || len(m.Apps) != 1 {
			t.Errorf("%s: %v", text, err)
			continue
		}
		i := slices.IndexFunc(m.Apps[0].Fates, func(f Fate) bool { return slices.Contains(strings.Split(f.Word, ", "), s.key) })
		if i < 0 {
			t.Errorf("nothing says what became of %s:\n%s", s.key, m.Report())
			continue
		}
		fate, set := m.Apps[0].Fates[i], slices.Contains(strings.Fields(settings), s.key)
		switch {
		case set && fate.Left():
			t.Errorf("%s became nothing: %s", s.key, fate.Why)
		case !set && (!fate.Left() || fate.Why == ""):
			t.Errorf("%s became %v (%s)", s.key, fate.To, fate.Why)
		}
	}
	for key := range pm2Keys() {
		if !known[key] {
			t.Errorf("the test does not have %s", key)
		}
	}
}

// What is wrong is one line with its place, and nothing comes of it.
func TestBadSources(t *testing.T) {
	for _, tt := range []struct{ name, text, want string }{
		{"a.json", "[{\"script\": \"a.js\",\n \"instances\": \"many\"}]", `a.json:2: instances must be a whole number, got "many"`},
		{"a.json", "{\"apps\": [{\"script\": \"a.js\"},\n 3]}", `a.json:2: an app must be an object, got a number`},
		{"a.json", `{"x": 3}`, `a.json:1: there are no apps: a configuration is a list of them, or an object with apps, got an object`},
		{"a.json", `{"apps": 3}`, `a.json:1: there are no apps: a configuration is a list of them, or an object with apps, got a number`},
		{"a.json", "{\n\"script\": \"a.js\",\n\"args\": ]}", `a.json:3: did not find expected node content`},
		{"a.yaml", "apps:\n  - script: a.js\n    name: [x", `a.yaml:3: did not find expected ',' or ']'`},
		{"a.yaml", "a: &a [x]\nb: &b [*a, *a]\n" + "script: a.js\n---\nx: 1", `a.yaml:4: a second document is not possible here`},
		{"a.json", "[{\"name\": \"x\",\n \"args\": []}]", `a.json:1: app "x" has no script`},
		{"a.json", "[{\"script\": \"a.js\",\n\"instances\": 600}]", `a.json:2: instances: Instances= must be a number from 1 to 512 or max, got "600"`},
		{"a.json", "[{\"script\": \"a.js\"},\n{\"script\": \"x/a.js\"}]", `a.json:2: two apps are named "a"`},
		{"a.json", "[{\"script\": \"list.js\"}]", `a.json:1: "list" is a verb of unitgen and cannot name an app`},
		{"a.json", "[{\"script\": \"a.js\",\n\"port\": 3000,\n\"uid\": \"a:b\"}]", `a.json:3: User= must be the name or number of a user, got "a:b"`},
		{"a.json", "[{\"script\": \"a.js\", \"args\":\n\"a 'b\"}]", `a.json:1: args cannot be taken apart: a quote has no end: "a 'b"`},
		{"dump.pm2", `{}`, `dump.pm2:1: it is no list of processes, which pm2 save writes, but an object`},
		{"Procfile", "web: x\n\nweb x", `Procfile:3: a line must be NAME: COMMAND, got "web x"`},
		{"Procfile", "# none\n", `Procfile: there is no process in it: a line is NAME: COMMAND`},
		{"Procfile", "web: echo \"x", `Procfile:1: the command of web cannot be taken apart: a quote has no end`},
		{"s.conf", "command=x", `s.conf:1: a section such as [program:app] must stand before this line`},
		{"s.conf", "[program:a\n", `s.conf:1: a section must end in ]`},
		{"s.conf", "[program:a]\ncommand=x %(nothing)s", `s.conf:2: command: supervisord has no %(nothing)s`},
		{"s.conf", "[program:a]\ncommand=x 5%", `s.conf:2: command: "%" must be written "%%", or begin an expansion such as %(program_name)s`},
		{"s.conf", "[program:a]\ncommand=x %(ENV_NONE)s", `s.conf:2: command: %(ENV_NONE)s is a variable that is not set here: NONE=… unitgen import …`},
		{"s.conf", "[program:a]\ncommand=x %(ENV_API_TOKEN)s", `s.conf:2: command has the value of API_TOKEN, and everybody can read it in the unit: the program must take it from its environment`},
		{"s.conf", "[program:a]\nuser=x", `s.conf:1: program "a" has no command`},
		{"s.conf", "[program:a]\ncommand=x\nnumprocs=x", `s.conf:3: numprocs: Instances= must be a number from 1 to 512 or max, got "x"`},
		{"s.conf", "[program:a]\ncommand=x\nenvironment=A=\"b", `s.conf:3: environment: the quote of A has no end`},
		{"s.conf", "[program:a]\ncommand=x\nstopsignal=WINCH", `s.conf:3: stopsignal must be TERM, HUP, INT, QUIT, KILL, USR1 or USR2, got "WINCH"`},
		{"a.service", "ExecStart=/bin/x", `a.service:1: a section such as [Service] must stand before this line`},
		{"a.service", "[Service]\nType=forking\nExecStart=/bin/x", `a.service:2: Type=forking does not fit an instance, whose program must stay in the foreground and listen`},
		{"a.service", "[Service]\nExecStart=/bin/x\nExecStart=/bin/y", `a.service:3: an instance has one ExecStart=`},
		{"a.service", "[Service]\nExecStart=/bin/x --home=%h", `a.service:2: ExecStart=: what %h stands for must be written out`},
		{"a.service", "[Service]\n", `a.service: it has no ExecStart=`},
		{"a.service", "[Service]\nExecStart=/bin/x\nTimeoutStopSec=x", `a.service:3: TimeoutStopSec=x is no time`},
		{"a@1.service", "[Service]\n", `a@1.service: it is one instance; the template has them all`},
		{"a.service", "[X-Unitgen]\nVersion=1\n", `a.service: it is a unit of unitgen's already`},
	} {
		dir := t.TempDir()
		path := filepath.Join(dir, tt.name)
		writeTestFile(t, path, tt.text)
		m, err := Read(t.Context(), options(t, path))
		var input *app.InputError
		if !errors.As(err, &input) || err.Error() != tt.want {
			t.Errorf("%q gives\n%v\nwant\n%s", tt.text, err, tt.want)
		}
		if m != nil && err == nil {
			t.Errorf("%q made %d apps", tt.text, len(m.Apps))
		}
	}
}

func TestBadDotenv(t *testing.T) {
	dir := t.TempDir()
	writeTestFile(t, filepath.Join(dir, "Procfile"), "web: x")
	writeTestFile(t, filepath.Join(dir, ".env"), "A=1\nPASSWORD \"hidden\"")
	_, err := Read(t.Context(), options(t, filepath.Join(dir, "Procfile")))
	if want := ".env:2: a line must be KEY=VALUE"; err == nil || err.Error() != want {
		t.Errorf("got %v, want %s", err, want)
	}
}

// The apps that are named are those that come out, also one that would be left out else.
func TestOnly(t *testing.T) {
	path := filepath.Join(t.TempDir(), "Procfile")
	writeTestFile(t, path, "web: x\nworker: y\n")
	o := options(t, path)
	o.Only, o.User = []string{"worker"}, "nobody"
	m, err := Read(t.Context(), o)
	if err != nil || len(m.Apps) != 1 || m.Apps[0].Name != "worker" || m.Apps[0].Skip != "" {
		t.Fatal(m, err)
	}
	if text := m.Files("")[0].Text; !strings.Contains(text, "\nUser=nobody\n") {
		t.Error(text)
	}
	o.Only = []string{"none"}
	if _, err := Read(t.Context(), o); err == nil || err.Error() != `Procfile: there is no app "none"; there are: web, worker` {
		t.Error(err)
	}
}

// --env= takes env_NAME over env, and the name of the app with append_env_to_name.
func TestEnv(t *testing.T) {
	path := filepath.Join(t.TempDir(), "a.json")
	writeTestFile(t, path, `{"script": "a.js", "append_env_to_name": true, "env_live": {"A": "live", "PORT": 80}, "env": {"A": "dev", "PORT": 3000, "B": "b"}}`)
	o := options(t, path)
	o.Env = "live"
	m, err := Read(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	text := m.Files("")[0].Text
	for _, line := range []string{"Environment=A=live", "Environment=B=b", "Environment=PORT=80", "Listen=80"} {
		if !strings.Contains(text, "\n"+line+"\n") {
			t.Errorf("no %s in\n%s", line, text)
		}
	}
	if m.Apps[0].Name != "a-live" {
		t.Error(m.Apps[0].Name)
	}
}

func TestCalendar(t *testing.T) {
	for pattern, want := range map[string]string{
		"0 4 * * *": "*-*-* 04:00:00", "*/5 * * * *": "*-*-* *:00/5:00", "0 0 1,15 * *": "*-*-01,15 00:00:00",
		"30 2 * * 1-5": "Mon,Tue,Wed,Thu,Fri *-*-* 02:30:00", "15 10 * * sun,sat": "Sun,Sat *-*-* 10:15:00",
		"0 0 */2 1-6 *": "*-01..06-01/2 00:00:00", "*/10 0 12 * * *": "*-*-* 12:00:00/10", "0 8-18/2 * * *": "*-*-* 08..18/2:00:00",
		"0 0 * * 5-7": "Fri,Sat,Sun *-*-* 00:00:00", "5/15 * * * *": "*-*-* *:05/15:00", "@daily": "daily", "0 0 * * 7": "Sun *-*-* 00:00:00",
	} {
		got, err := calendar(pattern)
		if err != nil || got != want {
			t.Errorf("calendar(%q) = %q, %v, want %q", pattern, got, err, want)
		}
	}
	for _, pattern := range []string{"", "x", "* * * *", "60 * * * *", "0 0 1 * 1", "5-1 * * * *", "*/0 * * * *", "*,5 * * * *", "0 0 L * *", "@reboot"} {
		if got, err := calendar(pattern); err == nil {
			t.Errorf("calendar(%q) = %q", pattern, got)
		}
	}
}

// systemd takes what calendar writes.
func TestCalendarOfSystemd(t *testing.T) {
	analyze := needs.Program(t, "systemd-analyze", "systemd")
	args := []string{"calendar"}
	for _, pattern := range []string{"0 4 * * *", "*/5 * * * *", "0 0 1,15 * *", "30 2 * * 1-5", "0 0 */2 1-6 *", "*/10 0 12 * * *", "0 8-18/2 * * *", "5/15 * * * *", "@weekly"} {
		at, err := calendar(pattern)
		if err != nil {
			t.Fatal(err)
		}
		args = append(args, at)
	}
	if out, err := exec.CommandContext(t.Context(), analyze, args...).CombinedOutput(); err != nil {
		t.Errorf("%v\n%s", err, out)
	}
}

func TestSecret(t *testing.T) {
	for _, name := range []string{"API_KEY", "apiKey", "DB_PASSWORD", "GITHUB_TOKEN", "SECRET", "AWS_SECRET_ACCESS_KEY", "SENTRY_DSN", "PGPASSWORD", "JWT"} {
		if !secret(name, "x") {
			t.Errorf("%s is no secret", name)
		}
	}
	for _, name := range []string{"NODE_ENV", "PORT", "KEYBOARD", "HOST", "PWD", "MONKEY", "AUTHOR", "LEVEL"} {
		if secret(name, "x") {
			t.Errorf("%s is a secret", name)
		}
	}
	for _, value := range []string{"postgres://u:p@db/x", "-----BEGIN PRIVATE KEY-----", "ghp_x", "sk-x"} {
		if !secret("X", value) {
			t.Errorf("%q is no secret", value)
		}
	}
	if secret("X", "http://host:80/path@x") {
		t.Error("an address without a password is a secret")
	}
	if got := secretArgument([]string{"x", "--port", "1", "--db-password", "p"}); got != "--db-password" {
		t.Error(got)
	}
	if got := secretArgument([]string{"x", "--key-file=/etc/key", "--verbose"}); got != "" {
		t.Error(got)
	}
}

// go-systemd reads the same of a unit, but for lines that a backslash continues, which it leaves as
// they are.
func TestUnitWitness(t *testing.T) {
	const text = "# a\n[Unit]\nDescription = x y \n\n[Service]\nExecStart=/bin/x \"a b\"\n;c\nEnvironment=A=b\n Environment=\n[Install]\nWantedBy=x\n"
	got, err := parseUnit("a.service", text)
	if err != nil {
		t.Fatal(err)
	}
	want, err := unit.DeserializeOptions(strings.NewReader(text))
	if err != nil || len(got) != len(want) || len(got) != 5 {
		t.Fatal(got, want, err)
	}
	for i, o := range got {
		if o.section != want[i].Section || o.key != want[i].Name || o.value != want[i].Value {
			t.Errorf("%v, want %v", o, want[i])
		}
	}
}

// Files are written all or none, secrets for their owner alone, and nothing that is there is
// changed.
func TestWrite(t *testing.T) {
	dir := t.TempDir()
	files := []File{{Path: filepath.Join(dir, "a.unitgen"), Text: "a"}, {Path: filepath.Join(dir, "a.env"), Text: "s", Secret: true}}
	written, err := Write(files)
	if err != nil || len(written) != 2 {
		t.Fatal(written, err)
	}
	for path, mode := range map[string]os.FileMode{files[0].Path: 0o644, files[1].Path: 0o600} {
		if st, err := os.Stat(path); err != nil || st.Mode().Perm() != mode {
			t.Errorf("%s: %v, %v", path, st.Mode(), err)
		}
	}
	if written, err := Write(files); err != nil || len(written) != 0 {
		t.Error("the same again:", written, err)
	}
	other := []File{{Path: filepath.Join(dir, "b.unitgen"), Text: "b"}, {Path: files[0].Path, Text: "other"}}
	var input *app.InputError
	if _, err := Write(other); !errors.As(err, &input) || !strings.Contains(err.Error(), "a.unitgen is there already") {
		t.Error(err)
	}
	other[1].Path = filepath.Join(dir, "none", "c.unitgen")
	if _, err := Write(other); err == nil {
		t.Error("a file in a directory that is not there was written")
	}
	if err := os.Chmod(files[1].Path, 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := Write(files); err == nil {
		t.Error("secrets that everybody reads were taken for written")
	}
	entries, err := os.ReadDir(dir)
	if err != nil || len(entries) != 2 {
		t.Error(entries, err)
	}
}

// A configuration that is a program has limits, and its errors are one line.
func TestJavaScript(t *testing.T) {
	needs.Program(t, "node", "nodejs")
	for _, tt := range []struct{ name, text, want string }{
		{"a.config.mjs", "export default { apps: [{ script: 'a.js' }] }", ""},
		{"b.config.mjs", "export const apps = [{ script: 'a.js' }]", ""},
		{"c.config.cjs", "module.exports = Promise.resolve([{ script: 'a.js' }])", ""},
		{"i.config.js", "exports.pm2 = [{ script: 'a.js' }]", ""},
		{"d.config.js", "exports.apps = [{ script: 'a.js' }]; setInterval(() => {}, 1000)", ""},
		{"e.config.js", "throw new Error('no\\nway')", "e.config.js: node could not read it: Error: no"},
		{"f.config.js", "module.exports = 'x'.repeat(2 << 20)", "f.config.js: its configuration has more than 1048576 bytes"},
		{"g.config.js", "process.exit(3)", "g.config.js: node could not read it: exit status 3"},
		{"h.config.js", "module.exports = null", "h.config.js: there are no apps: a configuration is a list of them, or an object with apps, got null"},
	} {
		path := filepath.Join(t.TempDir(), tt.name)
		writeTestFile(t, path, tt.text)
		m, err := Read(t.Context(), options(t, path))
		switch {
		case tt.want == "" && (err != nil || len(m.Apps) != 1):
			t.Errorf("%s: %v", tt.text, err)
		case tt.want != "" && (err == nil || err.Error() != tt.want):
			t.Errorf("%s gives\n%v\nwant\n%s", tt.text, err, tt.want)
		}
	}
}

func TestJavaScriptWithoutNode(t *testing.T) {
	path := filepath.Join(t.TempDir(), "a.config.js")
	writeTestFile(t, path, "")
	o := options(t, path)
	o.JavaScript = Node{}.Evaluate
	_, err := Read(t.Context(), o)
	var input *app.InputError
	if !errors.As(err, &input) || err.Error() != "a.config.js: it is a program for Node.js, and there is no node in $PATH" || input.Hint == "" {
		t.Error(err)
	}
}

// Root does not run what others have written, nor what it has written itself.
func TestJavaScriptAsRoot(t *testing.T) {
	needs.Root(t, "it makes files of other users")
	node := needs.Program(t, "node", "nodejs")
	dir, err := os.MkdirTemp("/tmp", "unitgen-imports-")
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, "a.config.js")
	writeTestFile(t, path, "module.exports = [{ script: String(process.getuid()) + process.getgroups() + process.env.SECRET }]")
	n := Node{Program: node, Root: true, Environ: append(os.Environ(), "SECRET=hidden")}
	read := func() string {
		data, _, err := n.Evaluate(t.Context(), path)
		if err != nil {
			return err.Error()
		}
		return string(data)
	}
	const nobody = 65534
	if got := read(); got != "it is a program, and root does not run it" {
		t.Error(got)
	}
	if err := os.Chown(path, nobody, nobody); err != nil {
		t.Fatal(err)
	}
	if got, want := read(), `[{"script":"6553465534undefined"}]`; got != want {
		t.Errorf("as its owner: %s, want %s", got, want)
	}
	if err := os.Chmod(path, 0o666); err != nil {
		t.Fatal(err)
	}
	if got := read(); !strings.Contains(got, "others than user 65534 can write it") {
		t.Error(got)
	}
	link := filepath.Join(dir, "link.config.js")
	if err := errors.Join(os.Chmod(path, 0o644), os.Symlink(path, link)); err != nil {
		t.Fatal(err)
	}
	if _, _, err := n.Evaluate(t.Context(), link); err == nil || !strings.Contains(err.Error(), "a symbolic link") {
		t.Error(err)
	}
	if err := errors.Join(os.Chown(dir, 1, 1)); err != nil {
		t.Fatal(err)
	}
	if got := read(); !strings.Contains(got, "others than user 65534 can write "+dir) {
		t.Error(got)
	}
	n.User = "nobody"
	if got, want := read(), `[{"script":"6553465534undefined"}]`; got != want {
		t.Errorf("as --user=: %s, want %s", got, want)
	}
	n.User = "root"
	if got := read(); got != "it is a program, and root does not run it" {
		t.Error(got)
	}
}

// What a program that does not end has started ends with it.
func TestJavaScriptEnds(t *testing.T) {
	needs.Program(t, "node", "nodejs")
	cmd := exec.Command("sh", "-c", "sleep 1000 & sleep 1000")
	began := time.Now()
	ctx, cancel := contextWithTimeout(t)
	defer cancel()
	cmd = ownSession(ctx, cmd.Args)
	_, err := runLimited(ctx, cmd)
	if err == nil || !strings.Contains(err.Error(), "did not end") || time.Since(began) > time.Minute {
		t.Error(err, time.Since(began))
	}
}
