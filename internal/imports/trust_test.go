package imports

import (
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
