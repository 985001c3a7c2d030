//go:build integration

package generator

import (
	"fmt"
	"strings"
	"testing"
)

// twoPorts listens on two ports.
const twoPorts = `import socket, time
a, b = socket.create_server(("127.0.0.1", 8131)), socket.create_server(("0.0.0.0", 8132))
time.sleep(600)
`

// testLearn makes apps without --listen=, and with a port whose address family the program decides.
// What the program asks for is where the app is, and nothing is left of the run that found out.
func testLearn(t *testing.T, s *system) {
	port := s.newPort()
	s.MustWriteFile(t, "/srv/learn.js", "require('http').createServer((q, a) => a.end('hello')).listen(8126)\n", 0o644)
	for _, test := range []struct {
		name    string
		options []string
		command []string
		listens []string // ListenStream= of the app
		said    string
	}{
		{"all", nil, []string{"/usr/bin/python3", "-m", "http.server", "8123"}, []string{"0.0.0.0:8123"},
			"The program listens on 0.0.0.0:8123: learn-all is served there."},
		{"local", nil, []string{"/usr/bin/python3", "-m", "http.server", "--bind", "127.0.0.1", "8124"}, []string{"127.0.0.1:8124"},
			"The program listens on 127.0.0.1:8124: learn-local is served there."},
		{"six", nil, []string{"/usr/bin/socat", "TCP6-LISTEN:8125,fork,reuseaddr", "EXEC:/bin/echo HTTP/1.0 200 OK"}, []string{"8125"},
			"The program listens on port 8125: learn-six is served there."},
		{"node", nil, []string{"/usr/bin/node", "/srv/learn.js"}, []string{"8126"}, "The program listens on port 8126: learn-node is served there."},
		{"family", []string{listenOption(port)}, []string{"/usr/bin/python3", "-m", "http.server", fmt.Sprint(port)}, []string{fmt.Sprintf("0.0.0.0:%d", port)},
			"The program listens by IPv4: learn-family is served at"},
	} {
		t.Run(test.name, func(t *testing.T) {
			app := "learn-" + test.name
			s.removeLater(t, app)
			out := s.unitgen(t, append(append([]string{app, "--instances=2", "--now"}, test.options...), append([]string{"--"}, test.command...)...)...)
			if !strings.Contains(out.Stderr, test.said) {
				t.Errorf("says %q, want %q", out.Stderr, test.said)
			}
			s.awaitUp(t, app, 2)
			text := s.MustExec(t, "cat", units+"/"+app+"@.socket")
			for _, address := range test.listens {
				if !strings.Contains(text, "\nListenStream="+address+"\n") {
					t.Errorf("%s@.socket is\n%s, want ListenStream=%s", app, text, address)
				}
			}
			if n := strings.Count(text, "ListenStream="); n != len(test.listens) {
				t.Errorf("%s@.socket has %d addresses, want %v", app, n, test.listens)
			}
			s.nothingLearns(t)
		})
	}
	s.MustWriteFile(t, "/srv/twoports.py", twoPorts, 0o644)
	for _, test := range []struct {
		name   string
		args   []string
		status int
		said   string
	}{
		{"twice", []string{"--now", "--", "/usr/bin/python3", "/srv/twoports.py"}, 2,
			"the program listens on more than one port, 127.0.0.1:8131 and 0.0.0.0:8132: --listen= must say which is the app's\n" +
				"unitgen: hint: unitgen learn-twice --now --listen=127.0.0.1:8131 -- /usr/bin/python3 /srv/twoports.py\n"},
		{"silent", []string{"--now", "--start-timeout=2s", "--", "/usr/bin/sleep", "infinity"}, 1,
			"the program listened on no TCP port within 2s"},
		{"ends", []string{"--now", "--", "/bin/sh", "-c", "echo there is no configuration >&2; exit 2"}, 1,
			`learn-ends did not listen: the program ended with exit status 2; it said "there is no configuration"`},
		{"no-now", []string{"--", "/usr/bin/sleep", "infinity"}, 2, "--listen= is missing"},
	} {
		t.Run(test.name, func(t *testing.T) {
			out := s.run(t, append([]string{"unitgen", "learn-" + test.name}, test.args...)...)
			if out.Status != test.status || !strings.Contains(out.Stderr, test.said) {
				t.Errorf("= %d, %q; want %d, %q", out.Status, out.Stderr, test.status, test.said)
			}
			if out := s.MustExec(t, "sh", "-c", "ls "+units+" | grep learn- || true"); out != "" {
				t.Errorf("%s is left in %s", out, units)
			}
			s.nothingLearns(t)
		})
	}
	s.removeLater(t, "learn-mute")
	out := s.run(t, "unitgen", "learn-mute", listenOption(s.newPort()), "--now", "--start-timeout=2s", "--", "/usr/bin/sleep", "infinity")
	if want := "Note: the program opened no port within 2s. If it takes its socket from systemd, --kind=listen starts it at once.\n"; out.Status != 1 || !strings.Contains(out.Stderr, want) {
		t.Errorf("of a program that opens no port: %d, %q, want %q in it", out.Status, out.Stderr, want)
	}
}

// nothingLearns checks that a run which found out is gone.
func (s *system) nothingLearns(t *testing.T) {
	t.Helper()
	if out := s.MustExec(t, "sh", "-c", "ls /run/systemd/system | grep unitgen-learn; systemctl list-units --all --no-legend --plain 'unitgen-learn*'; true"); out != "" {
		t.Errorf("left behind:\n%s", out)
	}
}
