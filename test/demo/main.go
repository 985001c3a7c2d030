// Demo shows unitgen at work in a throw-away systemd container: four instances of a real program,
// balanced, killed under load, scaled, stopped, and back after a reboot; and an unmodified Node.js
// program. It prints the commands it runs and what they really answered.
//
// It touches nothing of the host but the container's own folders, and fails if anything is not as
// it says.
package main

import (
	"context"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/unitgen/unitgen/test/rig"
)

// suite is what the demo runs on: the newest systemd that the rig has.
const suite = "trixie"

const port = "3000"

const nodePort = "3001" // of the Node.js program

// limit is for the whole demo, which takes some 20 seconds.
const limit = 3 * time.Minute

// demo is one run.
type demo struct {
	ctx context.Context
	c   *rig.Container
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	began := time.Now()
	if err := run(ctx); err != nil {
		fmt.Fprintln(os.Stderr, "demo:", err)
		os.Exit(1)
	}
	fmt.Printf("\nThat was %s. Nothing is left of it on this machine.\n", time.Since(began).Round(100*time.Millisecond))
}

func run(ctx context.Context) error {
	say("Booting a throw-away container with systemd as PID 1 …")
	c, err := rig.Start(ctx, suite, rig.Options{})
	if err != nil {
		return fmt.Errorf("boot container: %w", err)
	}
	defer c.Close()
	d := &demo{ctx: ctx, c: c}
	for _, act := range []func() error{
		d.install, d.create, d.spread, d.kill, d.reload, d.refuse, d.scale, d.node, d.stop, d.reboot,
	} {
		if err := act(); err != nil {
			return err
		}
	}
	return nil
}

// install puts the programs where packages would.
func (d *demo) install() error {
	root, err := rig.RepoRoot()
	if err != nil {
		return err
	}
	server := filepath.Join(root, "bin", "go-http")
	build := exec.CommandContext(d.ctx, "go", "build", "-trimpath", "-o", server, "./examples/go-http")
	build.Dir, build.Stderr = root, os.Stderr
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if err := build.Run(); err != nil {
		return fmt.Errorf("build example: %w", err)
	}
	for src, dst := range map[string]string{
		filepath.Join(root, "bin", "unitgen"):                          "/usr/bin/unitgen",
		filepath.Join(root, "bin", "lbshim"):                           "/usr/lib/unitgen/lbshim",
		filepath.Join(root, "bin", "lbshim-balancer"):                  "/usr/lib/unitgen/lbshim-balancer",
		filepath.Join(root, "packaging", "sysusers.d", "unitgen.conf"): "/usr/lib/sysusers.d/unitgen.conf",
		filepath.Join(root, "packaging", "node", "drain.cjs"):          "/usr/lib/unitgen/node/drain.cjs",
		filepath.Join(root, "examples", "node", "server.js"):           "/srv/web/server.js",
		server: "/usr/local/bin/server",
	} {
		mode := os.FileMode(0o755)
		if filepath.Ext(dst) != "" {
			mode = 0o644
		}
		if err := d.c.CopyIn(d.ctx, src, dst, mode); err != nil {
			return err
		}
	}
	_, err = d.output("systemd-sysusers")
	return err
}

func (d *demo) create() error {
	say("One command writes the units of four instances and starts them. The program is an ordinary web server in Go.")
	if err := d.show("unitgen", "app", "--instances", "4", "--listen", port, "--now", "--env", "APP_VERSION=1", "--", "/usr/local/bin/server"); err != nil {
		return err
	}
	say("They are plain units. systemd holds the sockets, supervises, logs and sandboxes; app.service is the balancer.")
	if err := d.show("systemctl", "list-units", "--no-pager", "--no-legend", "--plain", "app*"); err != nil {
		return err
	}
	return d.show("systemctl", "status", "--no-pager", "--lines=0", "app")
}

func (d *demo) spread() error {
	say("400 connections, counted by the process that answered:")
	result := d.c.StartLoad(rig.LoadOptions{Addr: "127.0.0.1:" + port, Clients: 8, Requests: 400}).Wait()
	if err := lossless(result); err != nil {
		return err
	}
	for _, pid := range slices.Sorted(maps.Keys(result.PIDs)) {
		fmt.Printf("    process %-6d %d\n", pid, result.PIDs[pid])
	}
	return nil
}

func (d *demo) kill() error {
	say("kill -9 of instance 2, and then of the balancer itself, while connections are being made:")
	load := d.c.StartLoad(rig.LoadOptions{Addr: "127.0.0.1:" + port, Clients: 8, Rate: 1000})
	for _, unit := range []string{"app@2.service", "app.service"} {
		if err := load.WaitOK(d.ctx, 500); err != nil {
			return err
		}
		pid, err := d.c.Show(d.ctx, unit, "MainPID")
		if err != nil {
			return err
		}
		if err := d.show("kill", "-9", pid); err != nil {
			return err
		}
		if _, err := d.c.WaitFor(d.ctx, unit, func(p rig.Properties) bool {
			return p["ActiveState"] == "active" && p["MainPID"] != pid
		}); err != nil {
			return err
		}
	}
	if err := load.WaitOK(d.ctx, 500); err != nil {
		return err
	}
	result := load.Stop()
	fmt.Println("    " + result.String())
	if n := result.Failures[rig.Refused].Count; n > 0 {
		return fmt.Errorf("%d connections were refused", n)
	}
	say("0 refused. Only requests that instance 2 was working on when it died could be lost.")
	return d.show("systemctl", "show", "-P", "StatusText", "app")
}

func (d *demo) reload() error {
	say("A new version goes live while 1000 requests a second come in. An extra instance tries it first.")
	if err := d.show("unitgen", "app", "--env", "APP_VERSION=2"); err != nil {
		return err
	}
	load := d.c.StartLoad(rig.LoadOptions{Addr: "127.0.0.1:" + port, Clients: 8, Rate: 1000})
	if err := load.WaitOK(d.ctx, 100); err != nil {
		return err
	}
	if err := d.show("systemctl", "reload", "app"); err != nil {
		return err
	}
	result := load.Stop()
	fmt.Println("    " + result.String())
	if err := lossless(result); err != nil {
		return err
	}
	return d.show("curl", "-sS", "http://127.0.0.1:"+port+"/")
}

func (d *demo) refuse() error {
	say("A broken version: the extra instance ends at once, the reload fails and says why, nobody else was touched.")
	if err := d.show("unitgen", "app", "--", "/bin/ls", "/no/such/config"); err != nil {
		return err
	}
	load := d.c.StartLoad(rig.LoadOptions{Addr: "127.0.0.1:" + port, Clients: 8, Rate: 1000, Want: "version=2"})
	out, err := d.c.Exec(d.ctx, "systemctl", "reload", "app")
	if err != nil {
		return err
	}
	fmt.Print("  $ systemctl reload app\n" + indent(out.Stdout+out.Stderr))
	if out.Status == 0 {
		return fmt.Errorf("a broken version went live")
	}
	if err := d.show("systemctl", "show", "-P", "StatusText", "app"); err != nil {
		return err
	}
	if err := load.WaitOK(d.ctx, 100); err != nil {
		return err
	}
	result := load.Stop()
	fmt.Println("    " + result.String())
	if err := lossless(result); err != nil {
		return err
	}
	say("Back to the good one:")
	if err := d.show("unitgen", "app", "--", "/usr/local/bin/server"); err != nil {
		return err
	}
	return d.show("systemctl", "reload", "app")
}

func (d *demo) scale() error {
	say("More instances, then fewer, under load. Those that stay are not touched.")
	load := d.c.StartLoad(rig.LoadOptions{Addr: "127.0.0.1:" + port, Clients: 8, Rate: 1000})
	for _, n := range []string{"6", "3"} {
		if err := load.WaitOK(d.ctx, 300); err != nil {
			return err
		}
		if err := d.show("unitgen", "app", "--instances", n); err != nil {
			return err
		}
		if _, err := d.c.WaitFor(d.ctx, "app.service", func(p rig.Properties) bool {
			return strings.HasPrefix(p["StatusText"], n+"/"+n+" ")
		}); err != nil {
			return err
		}
		if err := d.show("systemctl", "show", "-P", "StatusText", "app"); err != nil {
			return err
		}
	}
	result := load.Stop()
	fmt.Println("    " + result.String())
	return lossless(result)
}

// node shows an app of another kind, on a port of its own.
func (d *demo) node() error {
	say("An unmodified Node.js program: its bind() is answered with its instance's listener. Reloaded under load, half of it on kept connections:")
	if err := d.show("unitgen", "web", "--instances", "4", "--listen", nodePort, "--now", "--working-directory", "/srv/web", "--", "node", "server.js"); err != nil {
		return err
	}
	if err := d.show("curl", "-sS", "http://127.0.0.1:"+nodePort+"/"); err != nil {
		return err
	}
	if err := d.show("unitgen", "status", "web"); err != nil {
		return err
	}
	loads := []*rig.Load{
		d.c.StartLoad(rig.LoadOptions{Addr: "127.0.0.1:" + nodePort, Clients: 8, Rate: 300}),
		d.c.StartLoad(rig.LoadOptions{Addr: "127.0.0.1:" + nodePort, Clients: 8, Rate: 300, KeepAlive: true}),
	}
	for _, load := range loads {
		if err := load.WaitOK(d.ctx, 100); err != nil {
			return err
		}
	}
	if err := d.show("systemctl", "reload", "web"); err != nil {
		return err
	}
	for _, load := range loads {
		result := load.Stop()
		fmt.Println("    " + result.String())
		if err := lossless(result); err != nil {
			return err
		}
	}
	return d.show("unitgen", "remove", "web")
}

func (d *demo) stop() error {
	say("Stop means stop: the port is closed and no connection brings the app back.")
	if err := d.show("systemctl", "stop", "app"); err != nil {
		return err
	}
	out, err := d.c.Exec(d.ctx, "curl", "-sS", "http://127.0.0.1:"+port+"/")
	if err != nil {
		return err
	}
	fmt.Print("  $ curl http://127.0.0.1:" + port + "/\n" + indent(out.Stdout+out.Stderr))
	if out.Status == 0 {
		return fmt.Errorf("a stopped app answered")
	}
	return nil
}

func (d *demo) reboot() error {
	say("Reboot: the app was enabled by --now, so it is back.")
	fmt.Println("  $ reboot")
	if err := d.c.Reboot(d.ctx); err != nil {
		return err
	}
	if err := d.c.WaitActive(d.ctx, "app.service", "active"); err != nil {
		return err
	}
	for range 3 {
		if err := d.show("curl", "-sS", "http://127.0.0.1:"+port+"/"); err != nil {
			return err
		}
	}
	return nil
}

// show prints a command and its output, and fails if it failed.
func (d *demo) show(argv ...string) error {
	fmt.Println("  $ " + strings.Join(argv, " "))
	out, err := d.output(argv...)
	fmt.Print(indent(out))
	return err
}

func (d *demo) output(argv ...string) (string, error) {
	out, err := d.c.Exec(d.ctx, argv...)
	if err != nil {
		return "", err
	}
	text := out.Stdout + out.Stderr
	if out.Status != 0 {
		return text, fmt.Errorf("%s: exit status %d: %s", strings.Join(argv, " "), out.Status, strings.TrimSpace(text))
	}
	return text, nil
}

func lossless(r rig.Result) error {
	if r.Failed() > 0 {
		return fmt.Errorf("requests were lost: %s", r)
	}
	return nil
}

func say(text string) { fmt.Println("\n" + text) }

func indent(text string) string {
	var b strings.Builder
	for line := range strings.Lines(text) {
		b.WriteString("    " + line)
	}
	if text != "" && !strings.HasSuffix(text, "\n") {
		b.WriteByte('\n')
	}
	return b.String()
}
