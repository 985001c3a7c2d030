package imports

import (
	"context"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/unitgen/unitgen/internal/app"
)

func contextWithTimeout(t *testing.T) (context.Context, context.CancelFunc) {
	return context.WithTimeout(t.Context(), 200*time.Millisecond)
}

func ownSession(ctx context.Context, argv []string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, argv[0], argv[1:]...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	return cmd
}

// fuzzSource imports whatever text as a file of that name: it never panics, and what comes out is
// what unitgen reads.
func fuzzSource(f *testing.F, name string, seeds ...string) {
	for _, seed := range seeds {
		f.Add(seed)
	}
	dir := f.TempDir()
	f.Fuzz(func(t *testing.T, text string) {
		path := filepath.Join(dir, name)
		writeTestFile(t, path, text)
		m, err := Read(t.Context(), options(t, path))
		if err != nil {
			if strings.TrimSpace(err.Error()) == "" {
				t.Error("an error without a text")
			}
			return
		}
		m.Report()
		for _, file := range m.Files("") {
			if file.Secret {
				continue
			}
			if _, err := app.ParseFile(file.Path, file.Text); err != nil {
				t.Errorf("%q gives %q: %v", text, file.Text, err)
			}
		}
	})
}

func FuzzJSON(f *testing.F) {
	fuzzSource(f, "a.json", `[{"script":"a.js","env":{"A":1},"args":["x"]}]`, "{script: 'a b', /* c */ instances: -1, // d\n}", `{"apps":{"cmd":"x","port":1,"watch":["a"]}}`)
}

func FuzzYAML(f *testing.F) {
	fuzzSource(f, "a.yaml", "apps:\n- script: a.py\n  env: {PORT: 80, TOKEN: x}\n", "a: &a {script: x}\napps: [*a, {<<: *a, name: y}]", "- script: x\n  cron_restart: 0 4 * * *\n")
}

func FuzzDump(f *testing.F) {
	fuzzSource(f, "dump.pm2", `[{"name":"a","pm_exec_path":"/a.js","env":{"PORT":"1"}},{"name":"a"}]`)
}

func FuzzProcfile(f *testing.F) {
	fuzzSource(f, "Procfile", "web: A=1 x -p $PORT 'a b'\napi: cd x && y ${PORT}\n")
}

func FuzzSupervisord(f *testing.F) {
	fuzzSource(f, "s.conf", "[program:a]\ncommand=x %(process_num)02d\nnumprocs=2\nenvironment=A=\"b\",C=d\n", "[group:g]\nprograms=a\n[program:a]\ncommand=\n  x\nautorestart=unexpected\n")
}

func FuzzUnit(f *testing.F) {
	fuzzSource(f, "a@.service", "[Service]\nExecStart=/bin/x --port=%i ${A} $B $$ %%\nEnvironment=A=b \"C=d e\" T=%n\nTimeoutSec=5\n", "[Unit]\nStartLimitBurst=x\n[Service]\nExecStart=-x\nRestart=on-failure\nMemoryMax=5M\n")
}

// FuzzDotenv: what is read comes back out of the file that is written, as systemd reads it.
func FuzzDotenv(f *testing.F) {
	for _, seed := range []string{"A=1", "export A='b c' # d", "A=\"x\\ny\"\nB=`z`", "A=\"1\n2\""} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		vars, err := parseDotenv(text)
		if err != nil {
			return
		}
		for _, v := range vars {
			if !app.IsVariable(v.Key) {
				t.Errorf("%q gives the name %q", text, v.Key)
			}
		}
	})
}
