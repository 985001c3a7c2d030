package wanted

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/unitgen/unitgen/internal/account"
	"github.com/unitgen/unitgen/internal/app"
	"github.com/unitgen/unitgen/internal/plan"
)

// request asks for app web in a directory with a server and a data file, on a machine whose /etc is
// there too.
func request(t *testing.T, values map[string][]string, command ...string) *Request {
	t.Helper()
	dir := t.TempDir()
	if values == nil {
		values = make(map[string][]string)
	}
	for name, mode := range map[string]os.FileMode{"server": 0o755, "data": 0o644, "windows": 0o755} {
		text := map[string]string{"windows": "#!/bin/sh\r\n"}[name]
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), mode); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Mkdir(filepath.Join(dir, "etc"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "etc/passwd"), []byte("root:x:0:0:\nwww:x:33:33:\nug-taken:x:34:34:\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	return &Request{Name: "web", Word: "web", Values: values, Command: command, Commanded: command != nil, Machine: Machine{
		Dir: dir, Path: dir, Accounts: account.Book{Root: dir}, CPUs: func() int { return 3 },
		Calendar: func(text string) bool { return text == "daily" },
		Node:     func(context.Context, string) (string, error) { return "", errors.New("no node") },
	}}
}

func TestNewApp(t *testing.T) {
	r := request(t, map[string][]string{"listen": {"3000"}, "env-file": {"data", "-later"}, "watch": {"data"}, "reload-at": {"daily"}}, "./server", "data")
	a, err := r.App(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	want := []string{r.Dir + "/data", "-" + r.Dir + "/later"}
	if a.Name != "web" || a.Command[0] != r.Dir+"/server" || a.WorkingDirectory != r.Dir || !slices.Equal(a.EnvironmentFiles, want) || a.Restart.ReloadAt != "daily" {
		t.Errorf("got %+v", a)
	}
}

// An app that exists keeps what is not said, and an empty value takes a setting back.
func TestChangedApp(t *testing.T) {
	r := request(t, map[string][]string{"user": {""}, "listen": {"4000"}})
	was := app.App{Name: "web", Command: []string{"/opt/server"}, Listen: []app.Listen{{Port: 3000}}, User: "www", WorkingDirectory: "/srv"}
	a, err := r.App(t.Context(), &was)
	if err != nil {
		t.Fatal(err)
	}
	if a.User != "" || a.Listen[0].Port != 4000 || a.WorkingDirectory != "/srv" || a.Command[0] != "/opt/server" {
		t.Errorf("got %+v", a)
	}
}

// Everything that is wrong is found at once, and what could not be read is not missed too.
func TestErrors(t *testing.T) {
	r := request(t, map[string][]string{"env-file": {"gone"}, "working-directory": {"data"}, "watch": {"gone"}, "reload-at": {"never"}, "soak": {"x"}}, "gone")
	_, err := r.App(t.Context(), nil)
	var got []string
	for _, e := range app.InputErrors(err) {
		got = append(got, strings.SplitN(e.Msg, " ", 2)[0])
	}
	slices.Sort(got)
	if want := "--env-file= --listen= --reload-at= --soak= --watch= --working-directory= the"; strings.Join(got, " ") != want {
		t.Errorf("got %s\nwant %s\n%v", strings.Join(got, " "), want, err)
	}
}

func TestCommands(t *testing.T) {
	for command, want := range map[string]string{
		"":          "the command must not be empty",
		"gone":      `the command "gone" is not in $PATH`,
		"data":      `the command "data" is not in $PATH`,
		"./gone":    `the command "./gone" does not exist`,
		"./etc":     `the command "./etc" is a directory`,
		"./data":    `the command "./data" is not executable`,
		"./windows": `the command "./windows" is a script with the line ends of Windows`,
		"/dev/null": `the command "/dev/null" is not a regular file`,
	} {
		_, err := request(t, map[string][]string{"listen": {"80"}}, command).App(t.Context(), nil)
		if err == nil || !strings.HasPrefix(err.Error(), want) || strings.Contains(err.Error(), "\n") {
			t.Errorf("%q: got %v, want %s", command, err, want)
		}
	}
	r := request(t, map[string][]string{"listen": {"80"}}, "/opt/not/there")
	r.Site.Packaging = true
	if _, err := r.App(t.Context(), nil); err != nil {
		t.Errorf("of a package: %v", err)
	}
}

// A word that is neither an app nor a program may have been meant for a verb.
func TestUnknownWord(t *testing.T) {
	r := request(t, nil)
	for otherwise, want := range map[string]string{"": "unitgen web --listen=3000 -- COMMAND", "unitgen list": "unitgen list"} {
		r.Otherwise = otherwise
		_, err := r.App(t.Context(), nil)
		if found := app.InputErrors(err); len(found) == 0 || found[0].Hint != want {
			t.Errorf("got %+v, want hint %s", found, want)
		}
	}
}

func TestCount(t *testing.T) {
	for _, test := range []struct {
		text  string
		have  int
		isNew bool
		want  int // 0: an error
	}{
		{"", 4, false, 4}, {"", 0, true, 1}, {"2", 4, false, 2}, {"max", 4, false, 3}, {"+2", 4, false, 6}, {"-1", 4, false, 3},
		{"-4", 4, false, 0}, {"+1", 512, false, 0}, {"0", 4, false, 0}, {"many", 4, false, 0}, {"513", 4, false, 0},
	} {
		r := request(t, nil)
		if test.text != "" {
			r.Give("instances", test.text)
		}
		if n, err := r.Count(test.have, test.isNew); err == nil && n != test.want || err != nil && test.want != 0 {
			t.Errorf("--instances=%s of %d: %d, %v, want %d", test.text, test.have, n, err, test.want)
		}
	}
}

// A file is the whole app; an option wins over its line, and each error names the line or the
// option that it is of.
func TestFile(t *testing.T) {
	r := request(t, map[string][]string{"soak": {"x"}})
	write := func(text string) string {
		if err := os.WriteFile(filepath.Join(r.Dir, "web.unitgen"), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		return "web.unitgen"
	}
	if err := r.TakeFile(write("Command=./server data\nListen=3000\nSoakSec=1s\nEnvironment=A=1 B=2\nEnvironment=C=3\nUserUnits=yes\n")); err != nil {
		t.Fatal(err)
	}
	was := app.App{Name: "web", User: "www", SystemdVersion: 254}
	a, err := r.App(t.Context(), &was)
	if err == nil || !strings.HasPrefix(err.Error(), "--soak=") || strings.Contains(err.Error(), "\n") {
		t.Errorf("got %v", err)
	}
	if a.User != "" || len(a.Environment) != 3 || !a.UserUnits || a.SystemdVersion != 254 || a.WorkingDirectory != r.Dir {
		t.Errorf("got %+v", a)
	}
	r = request(t, nil)
	err = r.TakeFile(write("Command=./server\nListen=3000\nSurge=x\n"))
	if err == nil {
		_, err = r.App(t.Context(), nil)
	}
	if err == nil || !strings.HasPrefix(err.Error(), "web.unitgen:3: Surge=") {
		t.Errorf("got %v", err)
	}
	r = request(t, nil)
	r.Absolute = true
	err = r.TakeFile(write("Command=./server\nListen=3000\nEnvironmentFile=-x\n"))
	if parts := app.Parts(err); len(parts) != 2 || !strings.Contains(err.Error(), "in the files of a package") {
		t.Errorf("got %v", err)
	}
	if err := request(t, nil).TakeFile("gone.unitgen"); err == nil || !strings.HasPrefix(err.Error(), "--file=gone.unitgen cannot be read: ") {
		t.Errorf("got %v", err)
	}
}

func TestCheckFile(t *testing.T) {
	r := request(t, nil)
	r.Site = plan.Site{Packaging: true, Lbshim: "/lbshim"}
	path := filepath.Join(r.Dir, "shop.unitgen")
	if err := os.WriteFile(path, []byte("Command=/not/there\nListen=80\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	if a, err := r.CheckFile(t.Context(), path); err != nil || a.Name != "shop" {
		t.Errorf("got %+v, %v", a, err)
	}
	if _, err := r.CheckFile(t.Context(), filepath.Join(r.Dir, "data")); err == nil || !strings.Contains(err.Error(), `does not end in ".unitgen"`) {
		t.Errorf("got %v", err)
	}
}

// What the users of this machine say about an app, and what only a new place asks for.
func TestSuits(t *testing.T) {
	r := request(t, nil, "./server")
	base := app.App{Name: "web", Command: []string{r.Dir + "/server"}, Listen: []app.Listen{{Port: 80}}, WorkingDirectory: r.Dir}
	suits := func(change func(*app.App), before *app.App) error {
		a := base
		change(&a)
		return r.Suits(t.Context(), a, &plan.Disk{App: before}, 1)
	}
	if err := os.Chmod(r.Dir, 0o700); err != nil {
		t.Fatal(err)
	}
	for name, test := range map[string]struct {
		change func(*app.App)
		before *app.App
		want   string // how an error begins
	}{
		"no such user":        {func(a *app.App) { a.User = "gone" }, nil, "--user= must be a user who exists"},
		"a name that exists":  {func(a *app.App) { a.Name = "taken" }, nil, `the app would run as "ug-taken"`},
		"a closed directory":  {func(a *app.App) { a.User = "www" }, nil, "--working-directory= must be a directory that the app's user may enter"},
		"nothing has changed": {func(a *app.App) { a.User = "www" }, &app.App{User: "www", Command: base.Command, WorkingDirectory: r.Dir}, ""},
		"root":                {func(a *app.App) { a.User = "root" }, nil, ""},
		"a user's units":      {func(a *app.App) { a.UserUnits = true }, nil, ""},
	} {
		err := suits(test.change, test.before)
		if (err == nil) != (test.want == "") || err != nil && !strings.HasPrefix(err.Error(), test.want) {
			t.Errorf("%s: got %v, want %q", name, err, test.want)
		}
	}
}
