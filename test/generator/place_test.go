//go:build integration

package generator

import (
	"strings"
	"testing"
)

// here is a module that is found only where its program starts. It answers with its directory and
// the machine's interfaces, which it asks the kernel for by AF_NETLINK.
const here = `import os, socket
l = socket.socket(fileno=3)
l.setblocking(True)
while True:
    c, _ = l.accept()
    c.recv(65536)
    text = os.getcwd() + ' ' + ' '.join(name for _, name in socket.if_nameindex())
    c.sendall(f'HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: {len(text)}\r\n\r\n{text}'.encode())
    c.close()
`

// testPlace starts apps where the user stands, also in a home directory, and sends none where its
// user may not go.
func testPlace(t *testing.T, s *system) {
	s.MustExec(t, "useradd", "--create-home", "alice")
	s.later(t, "userdel", "--force", "--remove", "alice")
	s.MustExec(t, "chmod", "0700", "/home/alice")
	s.later(t, "rm", "-r", "/tmp/place", "/var/tmp/here.py")
	for _, dir := range []string{"/srv/place", "/home/alice/place", "/tmp/place", "/var/tmp"} {
		s.MustExec(t, "mkdir", "-p", dir)
		s.MustWriteFile(t, dir+"/here.py", here, 0o644)
		if dir != "/var/tmp" {
			s.MustExec(t, "chmod", "0755", dir)
		}
	}
	stand := func(dir string, args ...string) []string {
		return append([]string{"env", "--chdir=" + dir, "unitgen"}, args...)
	}
	const program = "/usr/bin/python3"
	for _, name := range []string{"placed", "homely", "fleeting", "kept"} {
		s.removeLater(t, name)
	}
	port := s.newPort()
	s.MustExec(t, stand("/srv/place", "placed", "--now", listenOption(port), "--", program, "-m", "here")...)
	if text := s.get(t, port); !strings.HasPrefix(text, "/srv/place lo") {
		t.Errorf("answers %q, want its directory and interfaces", text)
	}

	// A dynamic user has a /tmp of its own, in which the app's files stand none the less.
	for name, dir := range map[string]string{"fleeting": "/tmp/place", "kept": "/var/tmp"} {
		port = s.newPort()
		s.MustExec(t, stand(dir, name, "--now", listenOption(port), "--", program, "here.py")...)
		if text := s.get(t, port); !strings.HasPrefix(text, dir+" lo") {
			t.Errorf("in %s, answers %q", dir, text)
		}
	}

	port = s.newPort()
	args := []string{"homely", "--now", listenOption(port), "--", program, "-m", "here"}
	out := s.run(t, stand("/home/alice/place", args...)...)
	checkRefusal(t, out, 2, []string{`--working-directory= must be a directory that the app's user may enter, and a user of its own may not enter /home/alice`}, args)
	if !strings.Contains(out.Stderr, "hint: --user=alice\n") {
		t.Errorf("says %q, want whom to run it as", out.Stderr)
	}
	s.MustExec(t, stand("/home/alice/place", append([]string{"homely", "--user=alice"}, args[1:]...)...)...)
	if text := s.get(t, port); !strings.HasPrefix(text, "/home/alice/place lo") {
		t.Errorf("as alice, answers %q", text)
	}
}

// testBindV6Only serves a bare port on a machine where IPv6 sockets are that alone, unless they say
// otherwise.
func testBindV6Only(t *testing.T, s *system) {
	s.MustExec(t, "sysctl", "-w", "net.ipv6.bindv6only=1")
	s.later(t, "sysctl", "-w", "net.ipv6.bindv6only=0")
	s.removeLater(t, "both")
	port := s.newPort()
	s.unitgen(t, "both", "--now", "--instances=2", listenOption(port), "--", server)
	s.awaitUp(t, "both", 2)
	if text := s.get(t, port); !strings.HasPrefix(text, "instance=") {
		t.Errorf("over IPv4, answers %q", text)
	}
}
