// Scale measures what grows with the number of instances, apps, connections and reloads, in a
// throw-away container with a real systemd, and prints tables in Markdown (docs/scale.md quotes one
// run).
//
// CPU is that of everything in the container, by its cgroup, and of the parts that matter, by
// theirs: PID 1, the message bus, the journal, the balancer, the join commands, the instances with
// the commands of their units. Times are of the command as its user waits for it.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/unitgen/unitgen/test/rig"
)

const suite = "trixie"

// scale is one run.
type scale struct {
	ctx context.Context
	c   *rig.Container
	n   int // apps made so far: each has a name of its own
}

func main() {
	instances := flag.String("instances", "1,16,64,256,512", "numbers of instances of one app")
	apps := flag.String("apps", "1,16,64", "numbers of apps of four instances")
	connections := flag.String("connections", "1000,10000,50000,75000", "numbers of open connections of an app of four instances")
	reloads := flag.Int("reloads", 20, "reloads of an app of two instances")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	err := run(ctx, func(s *scale) error {
		for _, part := range []func() error{
			func() error { return s.instances(numbers(*instances)) },
			func() error { return s.apps(numbers(*apps)) },
			func() error { return s.connections(numbers(*connections)) },
			func() error { return s.reloads(*reloads) },
		} {
			if err := part(); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		fmt.Fprintln(os.Stderr, "scale:", err)
		os.Exit(1)
	}
}

// numbers are those of a list; what is none is left out.
func numbers(list string) (all []int) {
	for _, word := range strings.Split(list, ",") {
		if n, err := strconv.Atoi(word); err == nil {
			all = append(all, n)
		}
	}
	return all
}

func run(ctx context.Context, f func(*scale) error) error {
	c, err := rig.Start(ctx, suite, rig.Options{})
	if err != nil {
		return fmt.Errorf("boot container: %w", err)
	}
	defer c.Close()
	s := &scale{ctx: ctx, c: c}
	if err := s.install(); err != nil {
		return err
	}
	return f(s)
}

// install puts the programs where packages would, and the bench's load and server beside them.
func (s *scale) install() error {
	root, err := rig.RepoRoot()
	if err != nil {
		return err
	}
	dir, err := os.MkdirTemp("", "scale")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	for name, dst := range map[string]string{"client": "/usr/local/bin/client", "server": "/usr/local/bin/server"} {
		program := filepath.Join(dir, name)
		c := exec.CommandContext(s.ctx, "cc", "-O2", "-static", "-o", program, filepath.Join(root, "test/bench/load", name+".c"))
		if text, err := c.CombinedOutput(); err != nil {
			return fmt.Errorf("compile %s.c: %w: %s", name, err, text)
		}
		if err := s.c.CopyIn(s.ctx, program, dst, 0o755); err != nil {
			return err
		}
	}
	for src, dst := range map[string]string{
		"bin/unitgen": "/usr/bin/unitgen", "bin/lbshim": "/usr/lib/unitgen/lbshim", "bin/lbshim-balancer": "/usr/lib/unitgen/lbshim-balancer",
		"packaging/sysusers.d/unitgen.conf": "/usr/lib/sysusers.d/unitgen.conf",
	} {
		if err := s.c.CopyIn(s.ctx, filepath.Join(root, src), dst, 0o755); err != nil {
			return err
		}
	}
	_, err = s.output("systemd-sysusers")
	return err
}

func (s *scale) output(argv ...string) (string, error) {
	out, err := s.c.Exec(s.ctx, argv...)
	if err != nil {
		return "", err
	}
	if out.Status != 0 {
		return "", fmt.Errorf("%s: exit status %d: %s", strings.Join(argv, " "), out.Status, out.Stderr)
	}
	return out.Stdout, nil
}

// timed runs a command and returns for how long.
func (s *scale) timed(argv ...string) (time.Duration, error) {
	began := time.Now()
	_, err := s.output(argv...)
	return time.Since(began), err
}

// usage is CPU time by what used it.
type usage map[string]time.Duration

// parts are the cgroups of an app and of the system, by what they hold.
func parts(app string) map[string]string {
	return map[string]string{
		"all":       ".",
		"PID 1":     "init.scope",
		"bus":       "system.slice/dbus.service",
		"journal":   "system.slice/systemd-journald.service",
		"balancer":  "system.slice/" + app + ".service",
		"joins":     "system.slice/system-" + app + `\x2djoin.slice`,
		"instances": "system.slice/system-" + app + ".slice",
	}
}

// usage reads cpu.stat of each part; what has no cgroup used nothing.
func (s *scale) usage(app string) (usage, error) {
	u := usage{}
	for name, dir := range parts(app) {
		data, err := s.c.ReadFile("/sys/fs/cgroup/" + dir + "/cpu.stat")
		if os.IsNotExist(err) || err != nil {
			continue
		}
		for line := range strings.Lines(string(data)) {
			if word, ok := strings.CutPrefix(line, "usage_usec "); ok {
				n, err := strconv.ParseInt(strings.TrimSpace(word), 10, 64)
				if err != nil {
					return nil, fmt.Errorf("parse cpu.stat of %s: %w", dir, err)
				}
				u[name] = time.Duration(n) * time.Microsecond
			}
		}
	}
	return u, nil
}

// spend runs a command and returns how long it took and what CPU it cost whom.
func (s *scale) spend(app string, argv ...string) (time.Duration, usage, error) {
	before, err := s.usage(app)
	if err != nil {
		return 0, nil, err
	}
	took, err := s.timed(argv...)
	if err != nil {
		return took, nil, err
	}
	after, err := s.usage(app)
	if err != nil {
		return took, nil, err
	}
	for name := range after {
		after[name] -= before[name]
	}
	return took, after, nil
}

// memory is the anonymous memory of the balancer of an app, in MB.
func (s *scale) memory(app string) (float64, error) {
	pid, err := s.c.Show(s.ctx, app+".service", "MainPID")
	if err != nil {
		return 0, err
	}
	text, err := s.output("cat", "/proc/"+pid+"/smaps_rollup")
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(text) {
		if rest, ok := strings.CutPrefix(line, "Pss:"); ok {
			kb, err := strconv.ParseFloat(strings.Fields(rest)[0], 64)
			return kb / 1024, err
		}
	}
	return 0, fmt.Errorf("read memory of %s.service: no Pss", app)
}

// newApp names an app that was not there before.
func (s *scale) newApp() (name, port string) {
	s.n++
	return fmt.Sprintf("app%d", s.n), strconv.Itoa(3000 + s.n)
}

// create is the command that makes an app.
func create(app, port string, instances int) []string {
	return []string{"unitgen", app, "--instances", strconv.Itoa(instances), "--listen", "127.0.0.1:" + port, "--soak=100ms",
		"--start-timeout=5min", "--now", "--", "/usr/local/bin/server", "fd:3"}
}

// awaitUp waits until the balancer says that n instances are up.
func (s *scale) awaitUp(app string, n int) error {
	want := fmt.Sprintf("%d/%d instances up", n, n)
	_, err := s.c.WaitFor(s.ctx, app+".service", func(p rig.Properties) bool { return strings.Contains(p["StatusText"], want) })
	return err
}

func (s *scale) remove(app string) error {
	_, err := s.output("unitgen", "remove", app)
	return err
}

func seconds(d time.Duration) string { return fmt.Sprintf("%.2f s", d.Seconds()) }

func row(cells ...string) { fmt.Printf("| %s |\n", strings.Join(cells, " | ")) }

func header(title string, cells ...string) {
	fmt.Printf("\n%s\n\n", title)
	row(cells...)
	for i := range cells {
		cells[i] = "---"
	}
	row(cells...)
}

// perInstance is CPU of one instance, in ms, in the parts that matter.
func perInstance(u usage, n int) string {
	var b strings.Builder
	ms := func(d time.Duration) float64 { return float64(d) / float64(n) / 1e6 }
	fmt.Fprintf(&b, "%.1f (", ms(u["all"]))
	for i, name := range []string{"PID 1", "bus", "journal", "balancer", "joins", "instances"} {
		if i > 0 {
			b.WriteString(", ")
		}
		fmt.Fprintf(&b, "%s %.1f", name, ms(u[name]))
	}
	b.WriteString(")")
	return b.String()
}
