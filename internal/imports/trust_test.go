package imports

import (
	"context"
	"errors"
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
	if os.Geteuid() != 0 {
		t.Skip("not root")
	}
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
		{"a.conf", "[program:a]\ncommand=/bin/a\nenvironment=A=\"%(ENV_API_TOKEN)s\"", "b", of1, false,
			"a.conf: %(ENV_API_TOKEN)s is a variable of root's, and the file belongs to user 1"},
		{"a.conf", "[program:a]\ncommand=/bin/a\nenvironment=A=\"%(ENV_API_TOKEN)s\"", "b", of0, false, ""},
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

// A file that root has run as a user is that user's: what it says of root is refused, whoever owns it a moment later.
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
