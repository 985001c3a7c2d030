package explain

import (
	"strings"
	"testing"
)

// What programs of many languages print when they end of something, and the line that tells of
// what.
func TestTelling(t *testing.T) {
	for _, tt := range []struct{ name, said, want string }{
		{"nothing", "", ""},
		{"Python", `INFO starting
Traceback (most recent call last):
  File "/srv/main.py", line 3, in <module>
    load()
ValueError: DATABASE_URL is not set`, "ValueError: DATABASE_URL is not set"},
		{"Python, while another", `Traceback (most recent call last):
  File "/srv/main.py", line 3, in <module>
KeyError: 'a'

During handling of the above exception, another exception occurred:

Traceback (most recent call last):
  File "/srv/main.py", line 5, in <module>
RuntimeError: no settings`, "RuntimeError: no settings"},
		{"Node.js", `node:internal/modules/cjs/loader:1143
  throw err;
  ^

Error: Cannot find module 'express'
Require stack:
- /srv/main.js
    at Module._resolveFilename (node:internal/modules/cjs/loader:1140:15)
  code: 'MODULE_NOT_FOUND',
}

Node.js v20.19.2`, "Error: Cannot find module 'express'"},
		{"Node.js, code", "TypeError [ERR_INVALID_ARG_TYPE]: The \"path\" argument must be of type string\n    at x\n\nNode.js v20.1.0",
			"TypeError [ERR_INVALID_ARG_TYPE]: The \"path\" argument must be of type string"},
		{"Go", "panic: runtime error: index out of range [1]\n\ngoroutine 1 [running]:\nmain.main()\n\t/x/main.go:3\nexit status 2", "panic: runtime error: index out of range [1]"},
		{"Go, log.Fatal", "2026/11/28 12:00:00 reading settings\n2026/11/28 12:00:00 listen tcp :80: bind: permission denied", "2026/11/28 12:00:00 listen tcp :80: bind: permission denied"},
		{"Java", "INFO boot\nException in thread \"main\" java.lang.RuntimeException: start\n\tat Main.main(Main.java:3)\nCaused by: java.net.BindException: Address already in use\n\tat x\n\t... 3 more",
			"java.net.BindException: Address already in use"},
		{"Ruby", "/usr/lib/ruby/rubygems.rb:1:in `require': cannot load such file -- sinatra (LoadError)\n\tfrom /srv/app.rb:1:in `<main>'", "/usr/lib/ruby/rubygems.rb:1:in `require': cannot load such file -- sinatra (LoadError)"},
		{"Rust", "thread 'main' panicked at src/main.rs:2:5:\nno route\nnote: run with `RUST_BACKTRACE=1` environment variable to display a backtrace", "thread 'main' panicked at src/main.rs:2:5:"},
		{"shell", "/srv/run: 3: gunicorn: not found", "/srv/run: 3: gunicorn: not found"},
		{"gunicorn", "[INFO] Starting gunicorn 20.1.0\n[ERROR] Connection in use: ('0.0.0.0', 80)\n[ERROR] Retrying in 1 second.\n[ERROR] Can't connect to ('0.0.0.0', 80)", "[ERROR] Connection in use: ('0.0.0.0', 80)"},
		{"no word of failure", "good morning\ngood night", "good night"},
	} {
		if got := telling(strings.Split(tt.said, "\n")); got != tt.want {
			t.Errorf("%s: %q, want %q", tt.name, got, tt.want)
		}
	}
}

func TestPrintableIsSafeOnATerminal(t *testing.T) {
	for text, want := range map[string]string{
		"\x1b[31mred\x1b[0m \x1b]0;title\x07x": "red 0;titlex",
		"a\tb\x00\x7f\u202ec\xff":              "a bc",
		strings.Repeat("ä", 400):               strings.Repeat("ä", shown/2) + "…",
	} {
		if got := printable(text); got != want {
			t.Errorf("%q becomes %q, want %q", text, got, want)
		}
	}
}

func TestPathIn(t *testing.T) {
	c := &caseFile{set: settings{workingDirectory: "/srv/app"}}
	for line, want := range map[string]string{
		"OSError: [Errno 30] Read-only file system: '/srv/x y.db'":      "/srv/x y.db",
		"Error: EROFS: read-only file system, mkdir 'uploads'":          "/srv/app/uploads",
		"open /var/lib/shop/data.db: no such file or directory":         "/var/lib/shop/data.db",
		"open data.db: read-only file system":                           "/srv/app/data.db",
		"sh: 1: cannot create logs/today: Read-only file system":        "/srv/app/logs/today",
		"/bin/sh: 1: cannot create /etc/x.conf: Read-only file system":  "/etc/x.conf",
		"/srv/x.db: Read-only file system":                              "/srv/x.db",
		"java.io.FileNotFoundException: /srv/key.pem (No such file...)": "/srv/key.pem",
		"sqlite3.OperationalError: unable to open database file":        "",
	} {
		if got := c.pathIn(line); got != want {
			t.Errorf("%s: %q, want %q", line, got, want)
		}
	}
}
