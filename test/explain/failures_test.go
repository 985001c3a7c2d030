//go:build integration

package explain

import "github.com/unitgen/unitgen/test/apps"

// failure is a program that does not get ready. In texts {port} is the app's port, {dir} a
// directory of its own and {name} the app's name.
type failure struct {
	name    string
	files   map[string]string // in {dir}, executable
	setup   string            // shell, in {dir}
	args    []string          // options of unitgen, "--" and the command
	before  string            // shell between the writing of the units and the start
	after   string            // shell, at the end
	timeout string            // of the start; for those that must wait for it
}

// machineCode says the same on every systemd: the error is EACCES where PID 1 has
// prctl(PR_SET_MDWE) do it, else EPERM.
const machineCode = `import mmap, sys
try:
    mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
except PermissionError:
    sys.exit('mmap with PROT_EXEC: permission denied')
`

// prepare makes what several failures need: a user with a home directory.
const prepare = `useradd --create-home --shell /bin/sh alice; chmod 750 /home/alice`

const python = "/usr/bin/python3"

var failures = []failure{
	// The program ends by itself.
	{name: "exits", args: []string{"--", "/bin/sh", "-c", "echo reading settings; echo 'fatal: no such table: users' >&2; echo bye; exit 3"}},
	{name: "exits-at-once", args: []string{"--", "/bin/true"}},
	{name: "exits-silent", args: []string{"--", "/bin/false"}},
	{name: "traceback", files: map[string]string{"main.py": "def load():\n    raise ValueError('DATABASE_URL is not set')\n\nprint('starting')\nload()\n"},
		args: []string{"--", python, "{dir}/main.py"}},
	{name: "missing-module", files: map[string]string{"main.py": "import flask\n"}, args: []string{"--", python, "{dir}/main.py"}},
	{name: "missing-node-module", files: map[string]string{"main.js": "require('express')\n"}, args: []string{"--", "/usr/bin/node", "{dir}/main.js"}},
	{name: "segfault", args: []string{"--", python, "-c", "import ctypes; ctypes.string_at(0)"}},
	{name: "colours", args: []string{"--", "/bin/sh", "-c", `printf '\033[31mError: no licence\033[0m\n' >&2; exit 1`}},

	// PID 1 cannot make it the program.
	{name: "command-vanished", setup: "cp /bin/true program", args: []string{"--", "{dir}/program"}, before: "rm program"},
	{name: "not-executable", setup: "cp /bin/true program", args: []string{"--", "{dir}/program"}, before: "chmod a-x program"},
	{name: "crlf", files: map[string]string{"run.sh": "#!/bin/sh\nexec true\n"}, args: []string{"--", "{dir}/run.sh"}, before: `printf '#!/bin/sh\r\nexec true\r\n' >run.sh`},
	{name: "no-interpreter", files: map[string]string{"run": "#!/bin/sh\n"}, args: []string{"--", "{dir}/run"}, before: `printf '#!/opt/ruby/bin/ruby\n' >run`},
	{name: "no-shebang", files: map[string]string{"run": "exec true\n"}, args: []string{"--", "{dir}/run"}},
	{name: "other-processor", setup: `printf '\177ELF\2\1\1\0\0\0\0\0\0\0\0\0\2\0\363\0' >program; chmod +x program`, args: []string{"--", "{dir}/program"}},
	{name: "private-script", setup: "printf '#!/bin/sh\n' >run; chmod 700 run; chown alice run", args: []string{"--", "{dir}/run"}},
	{name: "working-directory", args: []string{"--working-directory={dir}/app", "--", "/bin/true"}, setup: "mkdir app", before: "rmdir app"},
	{name: "home", setup: "useradd --create-home bob; chmod 755 /home/bob", args: []string{"--working-directory=/home/bob", "--", "/bin/true"}, before: "chmod 700 /home/bob"},
	{name: "env-file", setup: "touch env", args: []string{"--env-file={dir}/env", "--", "/bin/true"}, before: "rm env"},
	{name: "namespace", args: []string{"-p", "ReadWritePaths={dir}/uploads", "--", "/bin/true"}},

	// The sandbox refuses what the program does.
	{name: "writes-beside", args: []string{"--working-directory={dir}", "--", python, "-c", "open('{dir}/app.log', 'w')"}},
	{name: "writes-own", setup: "chown alice .", args: []string{"--", python, "-c", "import os; os.mkdir('{dir}/uploads')"}},
	{name: "state-directory", args: []string{"--", python, "-c", "open('/var/lib/shop/data.db', 'w')"}},
	{name: "secret-file", setup: "echo x >key.pem; chmod 600 key.pem; chown alice key.pem", args: []string{"--", python, "-c", "open('{dir}/key.pem')"}},
	{name: "tmp", setup: "touch /tmp/handed-over", args: []string{"--", python, "-c", "import os; p = '/tm' + 'p/handed-over'; open(p)"}},
	{name: "family", files: map[string]string{"main.py": "import socket; socket.socket(socket.AF_VSOCK)\n"}, args: []string{"--", python, "{dir}/main.py"}},
	{name: "priority", files: map[string]string{"main.py": "import os; os.setpriority(os.PRIO_PROCESS, 0, -5) # setpriority\n"}, args: []string{"--", python, "{dir}/main.py"}},
	{name: "changes-user", files: map[string]string{"main.py": "import os; os.setgroups([])\n"}, args: []string{"--", python, "{dir}/main.py"}},
	{name: "changes-user-unprivileged", files: map[string]string{"main.py": "import os; os.setgroups([])\n"}, args: []string{"-p", "SystemCallFilter=@setuid", "--", python, "{dir}/main.py"}},
	{name: "machine-code", files: map[string]string{"main.py": machineCode}, args: []string{"--", python, "{dir}/main.py"}},

	// It runs and is not ready.
	{name: "hangs", timeout: "10s", args: []string{"--", "/bin/sleep", "600"}},
	{name: "other-port", timeout: "20s", args: []string{"--", python, "-m", "http.server", "8123"}},
	{name: "unix-only", timeout: "20s", args: []string{"--", python, "-c", "import socket, time; s = socket.socket(socket.AF_UNIX); s.bind('/tmp/only.sock'); s.listen(); time.sleep(600)"}},
	{name: "udp-only", timeout: "20s", args: []string{"--", python, "-c", "import socket, time; s = socket.socket(type=socket.SOCK_DGRAM); s.bind(('0.0.0.0', 8124)); time.sleep(600)"}},
	{name: "no-ready", timeout: "10s", args: []string{"--ready=notify", "--", "/bin/sleep", "600"}},
	{name: "unhealthy", timeout: "20s", args: []string{"--ready=http:/health", "--", apps.Server}},
	{name: "not-handoff", timeout: "10s", args: []string{"--kind=handoff", "--path=handoff", "--", "/bin/sleep", "600"}},

	// Ports.
	{name: "own-port", args: []string{"--kind=listen", "--", python, "-m", "http.server", "{port}"}},
	{name: "own-port-node", files: map[string]string{"main.js": "require('http').createServer().listen({port})\n"}, args: []string{"--kind=listen", "--", "/usr/bin/node", "{dir}/main.js"}},
	{name: "admin-port-unit", setup: "systemd-run --quiet --unit=squatter --socket-property=ListenStream=8125 /bin/true", after: "systemctl stop squatter.socket",
		args: []string{"--", python, "-m", "http.server", "8125"}},
	{name: "admin-port-stray", setup: "systemd-run --quiet --unit=stray " + python + " -m http.server 8126; for i in $(seq 100); do ss -ltn | grep -q :8126 && break; sleep 0.1; done", after: "systemctl stop stray",
		args: []string{"--", python, "-m", "http.server", "8126"}},
	{name: "port-taken", args: []string{"--", apps.Server}, after: "systemctl stop thief",
		before: "systemd-run --quiet --unit=thief " + python + " -m http.server {port}; for i in $(seq 100); do ss -ltn | grep -q :{port} && break; sleep 0.1; done"},
}
