package templates_test

import (
	"errors"
	"flag"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/fstest"
	"time"

	"github.com/unitgen/unitgen/internal/app"
	"github.com/unitgen/unitgen/internal/balance"
	"github.com/unitgen/unitgen/templates"
)

var update = flag.Bool("update", false, "write the golden unit trees anew")

const lbshim = "/usr/lib/unitgen/lbshim"

// golden is one app and the directory of testdata that holds its units.
type golden struct {
	name string
	app  app.App
}

func goldens() []golden {
	port := []app.Listen{{Port: 3000}}
	restart := app.Restart{
		Delay: 500 * time.Millisecond, Max: 5, Within: 10 * time.Minute, StopExitCodes: []int{0, 78}, Watchdog: 20 * time.Second,
		MaxMemory: 1 << 30, MemoryReload: 768 << 20, ReloadAt: "Mon..Fri 04:00 Europe/Berlin", Watch: []string{"/srv/app/100% new", "/srv/app/x"},
	}
	return []golden{
		{"minimal", app.App{Name: "app", Command: []string{"/opt/app/server"}, Listen: port, SystemdVersion: 257}},
		{"v252", app.App{Name: "app", Command: []string{"/opt/app/server", "--verbose"}, Listen: port, SystemdVersion: 252}},
		{"everything", app.App{
			Name:    "web-shop",
			Command: []string{"/opt/app/server", "--greeting=it's 100% \"fun\"", `{"a": "$HOME"}`, "", ";", "line\nbreak", "caf\xe9"},
			Listen:  port, Kind: app.KindListen, Path: app.PathSteer, Strategy: balance.LeastConnections,
			Environment: []app.Assignment{
				{Key: "DATABASE_URL", Value: "postgres://shop@db/shop?sslmode=require"},
				{Key: "GREETING", Value: "100% \"sure\", $HOME\nsecond line"},
			},
			EnvironmentFiles: []string{"/etc/default/web-shop", "-/etc/web shop/[local].env"},
			WorkingDirectory: "/srv/web shop ", User: "shop",
			Properties: []app.Property{
				{Key: "Type", Value: "notify"}, {Key: "MemoryMax", Value: "1G"}, {Key: "Environment", Value: "SHARD=%i"},
				{Key: "ReadWritePaths", Value: "/srv/uploads"},
			},
			DrainTimeout: 90 * time.Second, StartTimeout: 10 * time.Second, IdleExit: 10 * time.Minute, SystemdVersion: 257,
		}},
		{"user-units", app.App{
			Name: "app", Command: []string{"/opt/app/server"}, Listen: port, DrainTimeout: 5 * time.Second,
			UserUnits: true, SystemdVersion: 252,
		}},
		{"classic-bpf", app.App{
			Name: "app", Command: []string{"/opt/app/server"}, ClassicBPF: true, SystemdVersion: 257,
			Listen: []app.Listen{{Addr: netip.MustParseAddr("192.0.2.1"), Port: 80}},
		}},
		{"private-network", app.App{
			Name: "app", Command: []string{"/opt/app/server"}, Listen: port,
			Properties: []app.Property{{Key: "PrivateNetwork", Value: "yes"}}, SystemdVersion: 257,
		}},
		{"addresses", app.App{
			Name: "app", Command: []string{"/opt/app/server"}, SystemdVersion: 257,
			Listen: []app.Listen{
				{Addr: netip.MustParseAddr("0.0.0.0"), Port: 80}, {Addr: netip.MustParseAddr("::"), Port: 80},
				{Addr: netip.MustParseAddr("192.0.2.1"), Port: 443}, {Addr: netip.MustParseAddr("fe80::1%lo"), Port: 443},
			},
		}},
		{"handoff", app.App{
			Name: "app", Command: []string{"/opt/app/server"}, Listen: append([]app.Listen{{Unix: "/run/100% mine"}}, port...),
			Properties: []app.Property{{Key: "PrivateNetwork", Value: "yes"}}, SystemdVersion: 257,
		}},
		{"handoff-user-units", app.App{
			Name: "app", Command: []string{"/opt/app/server"}, Listen: []app.Listen{{Unix: "/home/me/app.sock"}},
			Kind: app.KindHandoff, UserUnits: true, Messages: true, MaxConnections: 100, SystemdVersion: 252,
		}},
		{"node", app.App{
			Name: "app", Command: []string{"/opt/app/node", "/home/me/app/server.js", "100% $HOME"}, Listen: port,
			Kind: app.KindNode, Environment: []app.Assignment{{Key: "PORT", Value: "8080"}}, SystemdVersion: 257,
		}},
		{"node-handoff", app.App{
			Name: "app", Command: []string{"/opt/app/node", "/srv/server.js"}, Listen: []app.Listen{{Unix: "/run/100% mine"}},
			Kind: app.KindNode, ProgramPort: 3000, SystemdVersion: 257,
		}},
		{"node-user-units", app.App{
			Name: "app", Command: []string{"/opt/app/node", "server.js"}, WorkingDirectory: "/srv/app", Listen: port,
			Kind: app.KindNode, Ready: app.ReadyMessage, ShutdownMessage: true, UserUnits: true, SystemdVersion: 252,
		}},
		{"restart", app.App{
			Name: "app", Command: []string{"/opt/app/server"}, Listen: port, Ready: app.ReadyNotify, Surge: "all", Parallel: 2,
			Soak: 10 * time.Second, SlowStart: time.Minute, Restart: restart, Weights: []int{3, 1, 2}, SystemdVersion: 257,
		}},
		{"restart-v252", app.App{
			Name: "app", Command: []string{"/opt/app/server"}, Listen: port, Ready: app.ReadyNotify, Restart: restart,
			SystemdVersion: 252,
		}},
		{"restart-user-units", app.App{
			Name: "app", Command: []string{"/opt/app/server"}, Listen: port, UserUnits: true, SystemdVersion: 257,
			Restart: app.Restart{Delay: time.Minute, MemoryReload: 1 << 30, ReloadAt: "daily"},
		}},
		{"agent", app.App{
			Name: "app", Command: []string{"/opt/app/server"}, Listen: port, Agent: app.Listen{Port: 9999}, SystemdVersion: 257,
		}},
		{"agent-user-units", app.App{
			Name: "app", Command: []string{"/opt/app/server"}, Listen: port, Agent: app.Listen{Unix: "/run/user/1000/100% app"}, UserUnits: true,
			SystemdVersion: 252,
		}},
		{"metrics", app.App{
			Name: "app", Command: []string{"/opt/app/server"}, Listen: port,
			Metrics: app.Listen{Addr: netip.MustParseAddr("127.0.0.1"), Port: 9464}, SystemdVersion: 257,
		}},
		{"metrics-user-units", app.App{
			Name: "app", Command: []string{"/opt/app/server"}, Listen: port, Metrics: app.Listen{Unix: "/run/user/1000/100% app"}, UserUnits: true,
			SystemdVersion: 252,
		}},
		{"nginx", app.App{
			Name: "app", Command: []string{"/usr/sbin/nginx", "-c", "/srv/nginx.conf"}, Listen: port,
			Environment: []app.Assignment{{Key: "NGINX", Value: "3;"}}, Properties: []app.Property{{Key: "IPAddressDeny", Value: "any"}},
			SystemdVersion: 257,
		}},
		{"user-per-instance", app.App{
			Name: "shop.example.com", Command: []string{"/opt/app/server"}, Listen: port, UserPerInstance: true,
			Properties: []app.Property{{Key: "StateDirectory", Value: "shop/%i"}}, SystemdVersion: 257,
		}},
		{"tmp", app.App{
			Name: "app", Command: []string{"/opt/app/server"}, WorkingDirectory: "/tmp/app", Listen: port, Strategy: balance.First,
			SystemdVersion: 257,
		}},
	}
}

// instances are those of the goldens: one number was taken away by hand.
var instances = []int{1, 2, 5}

func render(t *testing.T, a app.App) []templates.File {
	t.Helper()
	files, err := templates.Render(a, templates.Paths{Lbshim: lbshim, Instances: instances})
	if err != nil {
		t.Fatal(err)
	}
	return files
}

func TestRenderGolden(t *testing.T) {
	for _, g := range goldens() {
		t.Run(g.name, func(t *testing.T) {
			dir := filepath.Join("testdata", g.name)
			files := render(t, g.app)
			if *update {
				writeTree(t, dir, files)
			}
			for _, f := range files {
				want, err := os.ReadFile(filepath.Join(dir, f.Name))
				if err != nil {
					t.Fatalf("%v (go test ./templates -update writes it)", err)
				}
				if f.Text != string(want) {
					t.Errorf("%s differs from %s; go test ./templates -update and git diff show how:\n%s", f.Name, dir, f.Text)
				}
			}
			if there, _ := os.ReadDir(dir); len(there) != len(files) {
				t.Errorf("%s has %d files, rendered are %d", dir, len(there), len(files))
			}
		})
	}
}

func writeTree(t *testing.T, dir string, files []templates.File) {
	t.Helper()
	if err := os.RemoveAll(dir); err != nil {
		t.Fatal(err)
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		if err := os.WriteFile(filepath.Join(dir, f.Name), []byte(f.Text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

func TestRenderNames(t *testing.T) {
	for _, g := range goldens() {
		files := render(t, g.app)
		for i, unit := range g.app.Units() {
			if files[i].Name != unit {
				t.Errorf("%s: file %d is %s, want %s", g.name, i, files[i].Name, unit)
			}
		}
	}
}

// What stands in app.service is all that unitgen remembers.
func TestRenderedSettingsParseBack(t *testing.T) {
	for _, g := range goldens() {
		for _, f := range render(t, g.app) {
			if f.Name != g.app.Name.Service() {
				continue
			}
			back, err := app.ParseSettings(g.app.Name, f.Text)
			if err != nil {
				t.Fatalf("%s: %v", g.name, err)
			}
			if app.Settings(back) != app.Settings(g.app) {
				t.Errorf("%s: came back as\n%s", g.name, app.Settings(back))
			}
		}
	}
}

// Units have no trailing blanks and no two empty lines in a row, whatever is left out.
func TestRenderTidy(t *testing.T) {
	for _, g := range goldens() {
		for _, f := range render(t, g.app) {
			if strings.Contains(f.Text, "\n\n\n") || strings.Contains(f.Text, " \n") || !strings.HasSuffix(f.Text, "\n") || strings.HasSuffix(f.Text, "\n\n") {
				t.Errorf("%s: %s is untidy:\n%s", g.name, f.Name, f.Text)
			}
		}
	}
}

func TestRenderOverride(t *testing.T) {
	a := goldens()[0].app
	override := fstest.MapFS{"app.socket.tmpl": {Data: []byte("# mine: {{.Name}}\n")}}
	files, err := templates.RenderFS(a, templates.Paths{Lbshim: lbshim, Instances: instances}, override)
	if err != nil {
		t.Fatal(err)
	}
	plain := render(t, a)
	for i, f := range files {
		want := plain[i].Text
		if f.Name == "app.socket" {
			want = "# mine: app\n"
		}
		if f.Text != want {
			t.Errorf("%s is\n%s\nwant\n%s", f.Name, f.Text, want)
		}
	}
}

func TestRenderErrors(t *testing.T) {
	a := goldens()[0].app
	paths := templates.Paths{Lbshim: lbshim}
	for text, want := range map[string]string{
		"{{.Nonsense}}": "execute template: template: app.socket.tmpl:1",
		"{{":            "parse template: template: app.socket.tmpl:1",
	} {
		_, err := templates.RenderFS(a, paths, fstest.MapFS{"app.socket.tmpl": {Data: []byte(text)}})
		if err == nil || !strings.HasPrefix(err.Error(), want) {
			t.Errorf("%q: got %v, want %s…", text, err, want)
		}
	}
	if _, err := templates.RenderFS(a, paths, deniedFS{}); !errors.Is(err, fs.ErrPermission) {
		t.Errorf("unreadable override: got %v", err)
	}
	if _, err := templates.Render(app.App{Name: "app"}, paths); len(app.InputErrors(err)) < 2 {
		t.Errorf("invalid app: got %v", err)
	}
	if _, err := templates.Render(a, templates.Paths{Lbshim: "lbshim"}); err == nil {
		t.Error("relative path of lbshim: got no error")
	}
}

func TestPin(t *testing.T) {
	f, err := templates.PinFS(goldens()[0].app, 3, 7, fstest.MapFS{})
	if err != nil || f.Name != "app@3.service.d/50-unitgen-pin.conf" || !strings.HasSuffix(f.Text, "\n[Service]\nCPUAffinity=7\n") ||
		!strings.HasPrefix(f.Text, "# Generated by unitgen") {
		t.Errorf("got %v, %v", f, err)
	}
}

type deniedFS struct{}

func (deniedFS) Open(name string) (fs.File, error) {
	return nil, &fs.PathError{Op: "open", Path: name, Err: fs.ErrPermission}
}

func TestCompilingRuntimes(t *testing.T) {
	for command, want := range map[string]bool{
		"/usr/bin/node x.js": true, "/opt/node22 x.js": true, "/srv/app/server.js": true, "/usr/bin/java -jar x": true,
		"/usr/bin/env -S A=b node x": true, "/usr/bin/php8.2": true, "/usr/bin/python3.11 -m http": false, "/opt/app/server": false,
		"/usr/bin/env gunicorn": false, "/bin/sh -c exec;node;x.js": true, "/usr/bin/bash -euc PORT=1;/opt/jdk/bin/java": true,
		"/bin/sh x.sh node": false, "/bin/sh -c": false, "/bin/sh -c gunicorn|cat": false, "/usr/bin/nice -n 5 node x": true,
		"/usr/bin/tini -- /usr/bin/php x": true, "/usr/bin/nice gunicorn": false, "/srv/node_modules/.bin/tsx server": true,
	} {
		a := goldens()[0].app
		a.Command = strings.Fields(command)
		for _, f := range render(t, a) {
			if f.Name == "app@.service" && strings.Contains(f.Text, "MemoryDenyWriteExecute=no\n") != want {
				t.Errorf("%s: compiles while it runs = %v, want %v", command, !want, want)
			}
		}
	}
	// A script for such a runtime.
	a := goldens()[0].app
	a.Command = []string{"/srv/app"}
	files, err := templates.Render(a, templates.Paths{Lbshim: "/usr/lib/unitgen/lbshim", Script: []string{"/usr/bin/env", "node"}})
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		if f.Name == "app@.service" && !strings.Contains(f.Text, "MemoryDenyWriteExecute=no\n") {
			t.Error("a script for env node: compiles while it runs = false")
		}
	}
}
