package imports

import (
	"context"
	"errors"
	"fmt"
	"github.com/unitgen/unitgen/internal/needs"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// What a user's file claims of root is refused, what it says of itself is not.
func TestClaims(t *testing.T) {
	for text, want := range map[string]string{
		`[{"script": "a.js", "namespace": "x", "autorestart": false, "env": {"TOKEN": "x"}}]`: "",
		`[{"script": "a.js", "uid": "daemon"}]`:                                               "",
		`[{"script": "a.js", "uid": "root"}]`:                                                 "a.json:1: uid: User=root is root's to say, and the file belongs to user 1",
		`[{"script": "a.js", "gid": "root"}]`:                                                 "a.json:1: gid: Property=Group=root is root's to say, and the file belongs to user 1",
	} {
		checkClaims(t, "a.json", text, want)
	}
	checkClaims(t, "a.service", "[Service]\nExecStart=/bin/x\nEnvironmentFile=/etc/x\nExecStartPre=+/bin/y\n",
		"a.service:3: EnvironmentFile: EnvironmentFile=/etc/x is root's to say, and the file belongs to user 1\n"+
			"a.service:4: ExecStartPre: Property=ExecStartPre=+/bin/y is root's to say, and the file belongs to user 1")
}

func checkClaims(t *testing.T, name, text, want string) {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	writeTestFile(t, path, text)
	m, err := Read(t.Context(), options(t, path))
	if err != nil {
		t.Fatal(err)
	}
	got := ""
	if err := m.claims(1); err != nil {
		got = err.Error()
	}
	if got != want {
		t.Errorf("%s gives\n%s\nwant\n%s", text, got, want)
	}
	if err := m.claims(0); err != nil {
		t.Errorf("of root's file: %v", err)
	}
	if name == "a.service" && !strings.Contains(m.Report(), "EnvironmentFile=/etc/x") {
		t.Error(m.Report())
	}
}

// Files that a user's source has root read, and whose they are, count as they were read.
func TestClaimsOfFilesBeside(t *testing.T) {
	needs.Root(t, "it makes files of other users")
	const of1, of0 = 1, 0
	for _, c := range []struct {
		name, text, beside string
		owner              int
		link               bool // the file beside is a symbolic link to one of root's
		want               string
	}{
		{"Procfile", "web: ./run", ".env", of0, false, ""},
		{"Procfile", "web: ./run", ".env", of1, false, ""},
		{"Procfile", "web: ./run", ".env", of1, true, ".env: it belongs to user 0, and Procfile to user 1: --now takes files of one user"},
		{"a.conf", "[include]\nfiles=b.ini\n[program:a]\ncommand=/bin/a", "b.ini", of1, true, "b.ini: it belongs to user 0"},
		{"a.service", "[Service]\nExecStart=/bin/a", "a.socket", of1, true, "a.socket: it belongs to user 0"},
		{"a.service", "[Service]\nExecStart=/bin/a", "a.service.d/b.conf", of1, true, "b.conf: it belongs to user 0"},
	} {
		dir := t.TempDir()
		path, beside, target := filepath.Join(dir, c.name), filepath.Join(dir, c.beside), filepath.Join(dir, "root's")
		text := map[string]string{".env": "A=b\n", "b.ini": "[program:b]\ncommand=/bin/b\n", "a.socket": "[Socket]\nListenStream=3000\n"}[c.beside]
		if err := os.MkdirAll(filepath.Dir(beside), 0o755); err != nil {
			t.Fatal(err)
		}
		writeTestFile(t, path, c.text)
		err := os.Chown(path, c.owner, c.owner)
		if c.link {
			writeTestFile(t, target, text)
			err = errors.Join(err, os.Symlink(target, beside))
		} else {
			writeTestFile(t, beside, text)
			err = errors.Join(err, os.Chown(beside, c.owner, c.owner))
		}
		if err != nil {
			t.Fatal(err)
		}
		m, err := Read(t.Context(), options(t, path))
		if err != nil {
			t.Fatal(err)
		}
		// The name is root's file now; what was read is not.
		if err := errors.Join(os.Remove(path), os.WriteFile(path, nil, 0o644)); err != nil {
			t.Fatal(err)
		}
		got := ""
		if err := m.Claims(); err != nil {
			got = err.Error()
		}
		if !strings.Contains(got, c.want) || c.want == "" && got != "" {
			t.Errorf("%s with %s: %q, want %q", c.name, c.beside, got, c.want)
		}
	}
}

// A file that root has run as a user is that user's: what it says of root is refused, whoever owns
// it a moment later.
func TestClaimsOfAProgram(t *testing.T) {
	path := filepath.Join(t.TempDir(), "a.config.js")
	writeTestFile(t, path, "")
	o := options(t, path)
	o.JavaScript = func(context.Context, string) ([]byte, uint32, error) {
		return []byte(`[{"script": "a.js", "gid": "root"}]`), 1, nil
	}
	m, err := Read(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	if err := m.Claims(); err == nil || !strings.Contains(err.Error(), "Property=Group=root is root's to say") {
		t.Error(err)
	}
}

// A secret that PID 1 would not read back, with all those behind it, is left out with the reason.
func TestSecretsThatAFileCannotHave(t *testing.T) {
	path := filepath.Join(t.TempDir(), "Procfile")
	writeTestFile(t, path, "web: ./run")
	writeTestFile(t, filepath.Join(filepath.Dir(path), ".env"), "A_KEY=a\x00b\nB_KEY='\xff'\nC_KEY=fine\n")
	m, err := Read(t.Context(), options(t, path))
	if err != nil {
		t.Fatal(err)
	}
	if got := m.Apps[0].Secrets; len(got) != 1 || got[0].Key != "C_KEY" {
		t.Errorf("secrets %+v", got)
	}
	for _, want := range []string{"A_KEY= must not contain NUL", "B_KEY= must be valid UTF-8"} {
		if report := m.Report(); !strings.Contains(report, want) {
			t.Errorf("%q is missing in\n%s", want, report)
		}
	}
}

// Root's environment is for root's files alone, with --now and without: everybody reads what import
// writes.
func TestEnvironmentOfRoot(t *testing.T) {
	needs.Root(t, "it makes files of other users")
	const borrows = "environment=A=\"%(ENV_LEVEL)s\"\n"
	for name, c := range map[string]struct {
		main, included string // text of a.conf, and of b.ini, which is user 1's
		owner          int    // of a.conf
		root           bool
		want           string
	}{
		"root's own":                      {"[program:a]\ncommand=/bin/a\n" + borrows, "", 0, true, ""},
		"a user's, by that user":          {"[program:a]\ncommand=/bin/a\n" + borrows, "", 1, false, ""},
		"a user's":                        {"[program:a]\ncommand=/bin/a\n" + borrows, "", 1, true, "a.conf:3: environment: %(ENV_LEVEL)s is a variable of root's, and the file belongs to user 1"},
		"a user's, for all programs":      {"[program:a]\ncommand=/bin/a\n[supervisord]\n" + borrows, "", 1, true, "environment: %(ENV_LEVEL)s is a variable of root's"},
		"a user's, as a name of files":    {"[include]\nfiles=%(ENV_LEVEL)s\n", "", 1, true, "a.conf:2: %(ENV_LEVEL)s is a variable of root's"},
		"a user's, included by root's":    {"[include]\nfiles=b.ini\n", "[program:b]\ncommand=/bin/b\n" + borrows, 0, true, "b.ini:3: environment: %(ENV_LEVEL)s is a variable of root's"},
		"root's, which includes a user's": {"[include]\nfiles=b.ini\n[program:a]\ncommand=/bin/a\n" + borrows, "[program:b]\ncommand=/bin/b\n", 0, true, ""},
	} {
		dir := t.TempDir()
		path := filepath.Join(dir, "a.conf")
		writeTestFile(t, path, c.main)
		writeTestFile(t, filepath.Join(dir, "b.ini"), c.included)
		if err := errors.Join(os.Chown(path, c.owner, 0), os.Chown(filepath.Join(dir, "b.ini"), 1, 0)); err != nil {
			t.Fatal(err)
		}
		o := options(t, path)
		o.Root = c.root
		o.Getenv = func(string) string { return "3" }
		_, err := Read(t.Context(), o)
		if (err == nil) != (c.want == "") || err != nil && !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: got %v, want %q", name, err, c.want)
		}
	}
}

// What a source includes is bounded: root would read a disk otherwise.
func TestIncludesAreBounded(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "a.conf")
	read := func(files string) error {
		writeTestFile(t, path, "[include]\nfiles="+files+"\n[program:a]\ncommand=/bin/a\n")
		_, err := Read(t.Context(), options(t, path))
		return err
	}
	many := filepath.Join(dir, "many")
	if err := os.Mkdir(many, 0o755); err != nil {
		t.Fatal(err)
	}
	for i := range maxFiles {
		writeTestFile(t, filepath.Join(many, fmt.Sprintf("%04d.ini", i)), "")
	}
	if err := read("many/*.ini"); err == nil || !strings.Contains(err.Error(), "there are more than 1000 files") {
		t.Errorf("empty files: %v", err)
	}
	if err := read("many/00*.ini " + strings.Repeat("many/none* ", 8)); err != nil {
		t.Errorf("names: %v", err)
	}
	if err := read(strings.Repeat("many/none* ", 11)); err == nil || !strings.Contains(err.Error(), "more than 10000 names") {
		t.Errorf("names: %v", err)
	}
	for i := range maxBytes/maxSource + 1 {
		writeTestFile(t, filepath.Join(dir, fmt.Sprintf("%d.big", i)), strings.Repeat(";"+strings.Repeat(" ", 1022)+"\n", maxSource/1024))
	}
	if err := read("*.big"); err == nil || !strings.Contains(err.Error(), "more than 8388608 bytes") {
		t.Errorf("long files: %v", err)
	}
	writeTestFile(t, filepath.Join(dir, ".hidden.ini"), "nonsense")
	writeTestFile(t, filepath.Join(dir, "seen.ini"), "[program:b]\ncommand=/bin/b\n")
	if err := read("*.ini"); err != nil {
		t.Errorf("a hidden file: %v", err)
	}
	if err := read("[.ini"); err == nil || !strings.Contains(err.Error(), "is no pattern of files") {
		t.Errorf("a bad pattern: %v", err)
	}
}
