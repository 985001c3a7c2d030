//go:build integration

package programs

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"strings"

	"github.com/unitgen/unitgen/test/apps"
)

// program is a server that people use.
type program struct {
	name    string // of its test
	title   string // in the page
	folder  string // of srv, where its command is typed; empty: one of its own
	prepare string // for a shell there, before: what its user has done long ago
	command string // makes app
	port    int
	notes   string // in the page

	servers bool   // it is in the root file system of many servers only
	costly  bool   // it is another like Gunicorn, and starts slowly
	newest  bool   // it does not run on the oldest release, for what notes say
	want    string // in each answer
	peer    string // what the program logs for each request; empty: it answers that by want
	log     string // files where it does so; empty: the journal

	// ask is how its clients talk; nil: by HTTP.
	ask func(ctx context.Context, a *apps.App) ([]byte, error)
}

// app is the name of the app that command makes.
func (p program) app() string { return strings.Fields(p.command)[1] }

func (p program) dir() string {
	if p.folder == "" {
		return folder + "/" + p.app()
	}
	return folder + "/" + p.folder
}

// asRoot is what servers need that start as root and work as somebody else.
const asRoot = `--user root -p "CapabilityBoundingSet=CAP_SETUID CAP_SETGID CAP_CHOWN CAP_DAC_OVERRIDE CAP_KILL" -p "SystemCallFilter=@setuid @chown"`

// asEngine lets a container engine set up containers.
const asEngine = `--user root -p CapabilityBoundingSet=~ -p NoNewPrivileges=no -p RestrictNamespaces=no -p RestrictSUIDSGID=no -p RestrictAddressFamilies= ` +
	`-p ProtectSystem=no -p ProtectProc=default -p ProcSubset=all -p ProtectKernelTunables=no -p ProtectKernelModules=no -p ProtectKernelLogs=no ` +
	`-p ProtectControlGroups=no -p ProtectHostname=no -p ProtectClock=no -p PrivateDevices=no -p UMask=0022 ` +
	`-p "SystemCallFilter=@keyring @mount @privileged @resources @setuid @chown bpf"`

// asEngineHere is what podman needs in a container of the tests: its storage is an overlay, and it
// has no keys and no control groups of its own.
const asEngineHere = `mkdir -p /etc/containers rootfs/bin rootfs/dev rootfs/etc rootfs/proc rootfs/run rootfs/sys rootfs/tmp
	cp /srv/programs/go/server rootfs/bin
	printf "[storage]\ndriver = \"vfs\"\nrunroot = \"/run/containers/storage\"\ngraphroot = \"/var/lib/containers/storage\"\n" > /etc/containers/storage.conf
	printf "[containers]\nkeyring = false\ncgroups = \"disabled\"\n" > /etc/containers/containers.conf`

func table() []program {
	return []program{
		{
			name: "PythonServer", title: "Python's own server", folder: "page", port: 8000,
			command: "unitgen files -n 4 --listen 0.0.0.0:8000 --now -- python3 -m http.server",
			want:    "hello", peer: "127.0.0.1 - - ",
		},
		{
			name: "Uvicorn", title: "uvicorn with several workers", folder: "uvicorn", port: 8000,
			command: "unitgen api -n 4 --listen 0.0.0.0:8000 --now -- uvicorn --host 0.0.0.0 --workers 2 app:app",
			notes:   "each instance has two workers", want: "hello", peer: "127.0.0.1:", costly: true,
		},
		{
			name: "Gunicorn", title: "gunicorn", folder: "gunicorn", port: 8000,
			command: `unitgen wsgi -n 4 --listen 0.0.0.0:8000 -p SystemCallFilter=@setuid --now -- gunicorn --bind 0.0.0.0:8000 --access-logfile - app:app`,
			notes:   "its workers set their user, to the same one", want: "hello", peer: "127.0.0.1 - - ",
		},
		{
			name: "Nginx", title: "nginx", port: 80,
			// reuseport makes it open a socket for each worker.
			prepare: `sed -i "s/ default_server;/ default_server reuseport;/" /etc/nginx/sites-available/default
				grep -q "listen 80 default_server reuseport" /etc/nginx/sites-available/default; echo hello > /var/www/html/index.html`,
			command: `unitgen web -n 4 --listen 0.0.0.0:80 --listen "[::]:80" ` + asRoot +
				` -p "ReadWritePaths=/run /var/lib/nginx /var/log/nginx" --now -- nginx -g "daemon off;"`,
			notes: "with the distribution's configuration, and `listen 80 reuseport`; `systemctl reload web` reads it again",
			want:  "hello", peer: "127.0.0.1 - - ", log: "/var/log/nginx/access.log",
		},
		{
			name: "Go", title: "a static Go binary", folder: "go", port: 8080,
			command: "unitgen hello -n 4 --listen 0.0.0.0:8080 --now -- ./server :8080", want: "peer=127.0.0.1:",
		},
		{
			name: "Socat", title: "socat", port: 8080,
			command: "unitgen answer -n 4 --listen 0.0.0.0:8080 --now -- socat -d -d TCP-LISTEN:8080,fork,reuseaddr EXEC:/usr/local/bin/answer",
			want:    "instance=", peer: "accepting connection from AF=2 127.0.0.1:",
		},
		{
			name: "Shell", title: "a shell script that starts two processes", folder: "two", port: 8000,
			command: "unitgen script -n 4 --listen 0.0.0.0:8000 --now -- ./start.sh", peer: "127.0.0.1 - - ",
		},
		{
			name: "Flask", title: "Flask's own server", folder: "flask", port: 5000, servers: true,
			command: "unitgen blog -n 4 --listen 127.0.0.1:5000 --now -- flask run", want: "hello", peer: "127.0.0.1 - - ",
		},
		{
			name: "Django", title: "Django's own server", folder: "django", port: 8000, servers: true,
			command: "unitgen shop -n 4 --listen 0.0.0.0:8000 --now -- python3 manage.py runserver 0.0.0.0:8000",
			notes:   "its parent reloads the code, its child serves", want: "peer=127.0.0.1",
		},
		{
			name: "Redis", title: "redis", port: 6379, servers: true,
			command: `unitgen cache -n 4 --listen 127.0.0.1:6379 --now -- redis-server --save ""`,
			notes:   "each instance has separate data", ask: askRedis,
		},
		{
			name: "Apache", title: "Apache", port: 80, servers: true, prepare: "echo hello > /var/www/html/index.html",
			command: `unitgen httpd -n 4 --listen "[::]:80" ` + asRoot + ` -p TemporaryFileSystem=/run/apache2 -p ReadWritePaths=/var/log/apache2 --now -- apache2ctl -D FOREGROUND`,
			notes:   "with the distribution's configuration; each instance has a separate PID file", want: "hello", peer: "127.0.0.1 - - ", log: "/var/log/apache2/access.log",
		},
		{
			name: "Caddy", title: "Caddy", port: 80, servers: true,
			prepare: "echo hello > /usr/share/caddy/index.html; sed 's/^:80 {/&\\nlog/' /etc/caddy/Caddyfile > Caddyfile; grep -q ^log Caddyfile",
			command: `unitgen static -n 4 --listen 80 --user caddy -p ReadWritePaths=/var/lib/caddy --now -- caddy run`,
			notes:   "all instances share its other port, 2019: `caddy reload` reaches one instance", want: "hello", peer: `"remote_ip":"127.0.0.1"`,
		},
		{
			name: "JavaHTTP", title: "Java's own server", folder: "java-http", port: 8080, servers: true,
			command: "unitgen java -n 4 --listen 8080 --now -- java Server.java", want: "peer=/127.0.0.1:",
		},
		{
			name: "JavaNIO", title: "a Java server by NIO that watches its socket before it opens the port", folder: "java-nio", port: 8080, servers: true,
			command: "unitgen nio -n 4 --listen 0.0.0.0:8080 --now -- java Server.java", want: "peer=/127.0.0.1:",
		},
		{
			name: "Tomcat", title: "Tomcat", port: 8080, servers: true,
			prepare: "echo 'peer=<%= request.getRemoteAddr() %>' > /var/lib/tomcat10/webapps/ROOT/index.jsp; rm -f /var/lib/tomcat10/webapps/ROOT/index.html",
			command: `unitgen tomcat -n 4 --listen 0.0.0.0:8080 --user tomcat -p "ReadWritePaths=/var/log/tomcat10 /var/lib/tomcat10/webapps" -p CacheDirectory=tomcat10 ` +
				`-p MemoryDenyWriteExecute=no --env CATALINA_HOME=/usr/share/tomcat10 --env CATALINA_BASE=/var/lib/tomcat10 --env CATALINA_TMPDIR=/tmp ` +
				`--now -- sh /usr/libexec/tomcat10/tomcat-start.sh`,
			notes: "as the distribution's unit starts it", want: "peer=127.0.0.1",
		},
		{
			name: "Puma", title: "puma", folder: "puma", port: 9292, servers: true,
			command: "unitgen rack -n 4 --listen 0.0.0.0:9292 --now -- puma", want: "peer=127.0.0.1",
		},
		{
			name: "PHP", title: "PHP's own server", folder: "php", port: 8080, servers: true,
			command: "unitgen php -n 4 --listen 0.0.0.0:8080 --now -- php -S 0.0.0.0:8080", want: "peer=127.0.0.1",
		},
		{
			name: "Perl", title: "Perl's HTTP::Daemon", folder: "perl", port: 8080, servers: true,
			command: "unitgen perl -n 4 --listen 0.0.0.0:8080 --now -- perl server.pl", want: "peer=127.0.0.1",
		},
		{
			name: "SSH", title: "sshd", port: 2222, servers: true,
			prepare: `[ -e /root/.ssh/id_ed25519 ] || ssh-keygen -q -t ed25519 -N "" -f /root/.ssh/id_ed25519
				cp /root/.ssh/id_ed25519.pub /root/.ssh/authorized_keys`,
			command: `unitgen login -n 4 --listen 0.0.0.0:2222 --listen "[::]:2222" --user root -p RuntimeDirectory=sshd -p ProtectHome=no -p PrivateDevices=no ` +
				`-p "CapabilityBoundingSet=CAP_SETUID CAP_SETGID CAP_SYS_CHROOT CAP_KILL CAP_DAC_OVERRIDE CAP_CHOWN CAP_AUDIT_WRITE" ` +
				`-p "SystemCallFilter=@setuid @chown @resources chroot" --now -- /usr/sbin/sshd -D -e -p 2222`,
			notes: "a logged-in user is in the sandbox of the instance", peer: "Accepted publickey for root from 127.0.0.1 port ", ask: askSSH,
		},
		{
			name: "Podman", title: "podman, in the host's network", port: 8080, servers: true, prepare: asEngineHere,
			command: "unitgen pod -n 4 --listen 0.0.0.0:8080 " + asEngine + " --now -- podman run --rm --network host --rootfs /srv/programs/pod/rootfs /bin/server :8080",
			notes:   "here the container's root file system is a directory", want: "peer=127.0.0.1:",
		},
		{
			name: "PodmanAlone", title: "podman, without any network", port: 8080, servers: true, prepare: asEngineHere,
			command: "unitgen alone -n 4 --listen 0.0.0.0:8080 " + asEngine + " --now -- podman run --rm --network none --rootfs /srv/programs/alone/rootfs /bin/server :8080",
			notes:   "the container has only the app's port", want: "peer=127.0.0.1:",
		},
		{
			name: "Bun", title: "Bun", folder: "bun", port: 3000, servers: true,
			command: "unitgen bun -n 4 --listen 0.0.0.0:3000 --now -- bun server.ts", want: "127.0.0.1",
		},
		{
			name: "Express", title: "`npm start` of an Express app", folder: "express", port: 3000, servers: true,
			command: "unitgen express -n 4 --listen 3000 --now -- npm start", want: "peer=::ffff:127.0.0.1",
		},
		{
			name: "Next", title: "`next start`", folder: "next", port: 3000, servers: true, newest: true, prepare: "NEXT_TELEMETRY_DISABLED=1 npx next build",
			command: "unitgen site -n 4 --listen 3000 --now -- npx next start",
			notes:   "needs Node.js 20, which Debian 12 does not have", want: "127.0.0.1",
		},
		{
			name: "TSX", title: "`npx tsx` of a TypeScript file", folder: "tsx", port: 3000, servers: true,
			command: "unitgen tsx -n 4 --listen 3000 --now -- npx tsx server.ts", want: "peer=::ffff:127.0.0.1",
		},
	}
}

// askRedis returns what redis says of its client.
func askRedis(ctx context.Context, a *apps.App) ([]byte, error) {
	conn, err := a.DialContext(ctx, "tcp", a.Addr())
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	if deadline, ok := ctx.Deadline(); ok {
		if err := conn.SetDeadline(deadline); err != nil {
			return nil, err
		}
	}
	if _, err := io.WriteString(conn, "CLIENT INFO\r\nQUIT\r\n"); err != nil {
		return nil, err
	}
	answer, err := io.ReadAll(conn)
	switch {
	case err != nil:
		return nil, err
	case !bytes.HasSuffix(answer, []byte("+OK\r\n")):
		return nil, fmt.Errorf("answer %q: %w", answer, io.ErrUnexpectedEOF)
	case !bytes.Contains(answer, []byte(" addr=127.0.0.1:")):
		return nil, fmt.Errorf("answer %q has no address of this client", answer)
	}
	return answer, nil
}

// askSSH logs in.
func askSSH(ctx context.Context, a *apps.App) ([]byte, error) {
	out, err := a.Exec(ctx, "ssh", "-p", fmt.Sprint(a.Port), "-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null",
		"-o", "LogLevel=ERROR", "root@127.0.0.1", "echo logged in")
	if err == nil && out.Status != 0 { // a connection that broke ends it with 255
		err = fmt.Errorf("ssh: exit status %d, %s: %w", out.Status, out.Stderr, io.ErrUnexpectedEOF)
	}
	return []byte(out.Stdout), err
}

// page is docs/programs.md.
func page() string {
	var b strings.Builder
	b.WriteString(`# Programs

Each of these programs runs unchanged as four instances on one port, with one command in its directory. The tests run every line:
connections are spread evenly, ` + "`systemctl reload`" + ` under load loses none, an instance that is killed loses no more than the requests
that it had, and the program sees who its clients are.

| program | command | notes |
|---|---|---|
`)
	var long strings.Builder
	for _, p := range table() {
		command := "`" + p.command + "`"
		if len(command) > longCommand {
			command = "below"
			fmt.Fprintf(&long, "\n%s:\n\n    %s\n", p.title, wrap(p.command))
		}
		fmt.Fprintf(&b, "| %s | %s | %s |\n", p.title, command, p.notes)
	}
	b.WriteString(long.String())
	b.WriteString(`
A program that is not listed here most likely runs too: it needs a TCP port, and ` + "`--listen=`" + ` with the address that it opens.
` + "`unitgen doctor`" + ` and ` + "`unitgen status`" + ` say why a program does not get its port.
`)
	return b.String()
}

// longCommand is the longest command in bytes that stands in the table.
const longCommand = 200

// wrap breaks a command line before its options, as a shell takes it.
func wrap(command string) string {
	var b strings.Builder
	width := 0
	for i, part := range strings.Split(command, " -") {
		if i > 0 {
			part = " -" + part
		}
		if width += len(part); width > 110 {
			b.WriteString(" \\\n       ")
			width = len(part)
		}
		b.WriteString(part)
	}
	return b.String()
}
