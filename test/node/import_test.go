//go:build integration

package node

import (
	"fmt"
	"strings"
	"testing"
)

// says is a program that answers with what it finds in its environment.
const says = `require('http').createServer((request, response) => {
  response.end(['API_KEY', 'READ_BY', 'LEVEL'].map((key) => key + '=' + process.env[key]).join(';') + ' user=' + process.getuid());
}).listen(Number(process.argv[2] || process.env.PORT));
`

// ecosystem has two apps, one of which does not say where it listens. It says who runs it.
const ecosystem = `module.exports = { apps: [
  { name: 'eco-one', script: './says.js', instances: 2, exec_mode: 'cluster',
    env: { PORT: %d, READ_BY: process.getuid(), API_KEY: 'a $HOME "b" \\ ` + "\\`" + `\nc' } },
  { name: 'eco-two', script: 'says.js', args: '%d', uid: 'daemon' },
] };
`

// What PM2, systemd and foreman ran runs here: two apps of an ecosystem file, which its owner
// evaluates and not root; a unit written by hand; a Procfile with its .env. Secrets arrive byte for
// byte, and are not in the units.
func testImport(t *testing.T, s *system, _ string) {
	const dir = "/srv/import"
	imported := func(name string) *app {
		a := &app{system: s, t: t, name: name, port: s.newPort(), n: instances}
		t.Cleanup(a.remove)
		return a
	}
	one, two, legacy, proc := imported("eco-one"), imported("eco-two"), imported("legacy"), imported("proc")
	for name, text := range map[string]string{
		"says.js":             says,
		"ecosystem.config.js": fmt.Sprintf(ecosystem, one.port, two.port),
		"legacy.service":      fmt.Sprintf("[Service]\nExecStart=/usr/bin/node %s/says.js ${PORT}\nEnvironment=PORT=%d \"LEVEL=two words\"\nEnvironment=API_KEY=k%%%%y\nUser=daemon\nRestart=on-failure\n", dir, legacy.port),
		"Procfile":            "proc: LEVEL=$LEVEL exec node says.js $PORT\n",
		".env":                fmt.Sprintf("PORT=%d\nexport API_KEY=\"line\\nline\" # a comment\nLEVEL='$1'\n", proc.port),
	} {
		s.MustWriteFile(t, dir+"/"+name, text, 0o644)
	}
	s.MustExec(t, "chown", "daemon:", dir+"/ecosystem.config.js")
	run := func(source string) {
		t.Helper()
		report := s.MustExec(t, "sh", "-c", "cd "+dir+" && unitgen import "+source+" --now")
		if strings.Contains(report, "k%y") || strings.Contains(report, "line") {
			t.Errorf("the report has a secret:\n%s", report)
		}
	}
	for _, tt := range []struct {
		source string
		app    *app
		user   string
		want   string
	}{
		{"ecosystem.config.js", one, "", "API_KEY=a $HOME \"b\" \\ `\nc;READ_BY=1;LEVEL=undefined"},
		{"", two, "1", "API_KEY=undefined;READ_BY=undefined;LEVEL=undefined"},
		{"legacy.service", legacy, "1", "API_KEY=k%y;READ_BY=undefined;LEVEL=two words"},
		{"Procfile", proc, "", "API_KEY=line\nline;READ_BY=undefined;LEVEL=$1"},
	} {
		if tt.source != "" {
			run(tt.source)
		}
		body := tt.app.get(t.Context())
		if !strings.HasPrefix(body, tt.want+" user=") || tt.user != "" && !strings.HasSuffix(body, " user="+tt.user) {
			t.Errorf("%s answers %q, want %q of user %s", tt.app.name, body, tt.want, tt.user)
		}
		if env := s.MustShow(t, tt.app.instance(1), "Environment"); strings.Contains(env, "API_KEY") {
			t.Errorf("the unit of %s has a secret: %s", tt.app.name, env)
		}
	}
	one.awaitUp()
	if modes := strings.TrimSpace(s.MustExec(t, "sh", "-c", "stat -c '%a %n' /etc/unitgen/*.env")); modes != "600 /etc/unitgen/eco-one.env\n600 /etc/unitgen/legacy.env\n600 /etc/unitgen/proc.env" {
		t.Errorf("the files with secrets are\n%s", modes)
	}
}
