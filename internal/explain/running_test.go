package explain

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/unitgen/unitgen/internal/app"
)

// What a program that runs says of refusals, and what of it is the sandbox's doing. The other lines
// are the program's own business.
func TestRefusedNow(t *testing.T) {
	there := filepath.Join(t.TempDir(), "there") // in /tmp
	if err := os.WriteFile(there, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	c := &caseFile{Question: Question{App: "web"}, set: settings{workingDirectory: "/srv", protectHome: true, privateTmp: true, noExec: true, dynamic: true,
		app: app.App{Name: "web", Listen: []app.Listen{{Port: 3000}}}}}
	for line, want := range map[string]string{
		"OSError: [Errno 30] Read-only file system: '/srv/x.db'":      "unitgen web -p StateDirectory=web",
		"worker 7 was sent SIGSYS!":                                   "unitgen web -p SystemCallErrorNumber=EPERM",
		"Bad system call (core dumped)":                               "unitgen web -p SystemCallErrorNumber=EPERM",
		"nice: setpriority: Operation not permitted":                  "unitgen web -p SystemCallFilter=@resources",
		"ffi: mprotect: Permission denied":                            "unitgen web -p MemoryDenyWriteExecute=no",
		"socket(AF_PACKET): Address family not supported by protocol": "unitgen web -p RestrictAddressFamilies=AF_PACKET",
		"open " + there + ": no such file or directory":               c.options("%s", app.TmpHint(there)),

		"GET /admin 403 permission denied":                           "",
		"permission denied for table users":                          "",
		"listening on port 3000":                                     "",
		"socket(AF_INET6): Address family not supported by protocol": "",
		"open /etc/web.conf: no such file or directory":              "",
		"bind 0.0.0.0:3000: address already in use, trying the next": "",
		"executable memory: 5 MB":                                    "",
		"GET /read-only 200":                                         "",
	} {
		if r := c.refusedNow(t.Context(), line); r.Hint != want {
			t.Errorf("%s: %+v, want hint %q", line, r, want)
		}
	}
}

// The kernel's message counts for the app's own user, and else for the program's own file.
func TestAuditReason(t *testing.T) {
	const text = `SECCOMP auid=4294967295 uid=61000 gid=61000 ses=4294967295 pid=99 comm="sh" exe="/usr/bin/dash" sig=31 arch=c000003e syscall=101 compat=0 ip=0x7f code=0x80000000`
	const killed = "the sandbox killed /usr/bin/dash at a system call that it refuses (SystemCallFilter=)"
	for _, tt := range []struct {
		dynamic bool
		own     string
		want    string
	}{
		{true, "/usr/bin/node", killed},
		{false, "/usr/bin/node", ""},
		{false, "/usr/bin/dash", killed},
	} {
		c := &caseFile{Question: Question{App: "web"}, set: settings{dynamic: tt.dynamic}}
		if r := c.auditReason(text, tt.own); r.What != tt.want || r.What != "" && r.Said != "system call 101" {
			t.Errorf("%+v: %+v", tt, r)
		}
	}
}
