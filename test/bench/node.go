package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// The program of the Node.js targets, which is the same for all, and the one that puts Node's own
// cluster around it.
const (
	nodeProgram = `require('http').createServer((request, response) => response.end('` + pidAnswer + `' + process.pid + '\n')).listen(process.env.PORT, '127.0.0.1');`
	nodeCluster = `const cluster = require('cluster');
if (cluster.isPrimary) for (let i = 0; i < process.env.INSTANCES; i++) cluster.fork();
else require('./server.js');`
)

// nodeDir makes the directory of the programs and chooses the port.
func (t *target) nodeDir() (dir string, environ []string, err error) {
	if dir, err = os.MkdirTemp("", "bench"); err != nil {
		return "", nil, err
	}
	t.onStop(func() { os.RemoveAll(dir) })
	for name, text := range map[string]string{"server.js": nodeProgram, "cluster.js": nodeCluster} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			return "", nil, err
		}
	}
	port, err := freePort()
	t.address = "127.0.0.1:" + strconv.Itoa(port)
	return dir, append(os.Environ(), "PORT="+strconv.Itoa(port), "INSTANCES="+strconv.Itoa(instances)), err
}

func startNodeDirect(ctx context.Context) (*target, error) {
	if _, err := exec.LookPath("node"); err != nil {
		return nil, err
	}
	t := &target{name: "one process, direct"}
	dir, environ, err := t.nodeDir()
	if err != nil {
		return t, err
	}
	c := exec.CommandContext(ctx, "node", "server.js")
	c.Dir, c.Env, c.Stderr = dir, environ, os.Stderr
	if err := t.start(c); err != nil {
		return t, err
	}
	return t, await(ctx, "tcp", t.address)
}

// startNodeDirectAgain is the same once more.
func startNodeDirectAgain(ctx context.Context) (*target, error) {
	t, err := startNodeDirect(ctx)
	if t != nil {
		t.name += ", again"
	}
	return t, err
}

// startNodeSteer does what lbshim does: it answers each process's bind() with a steered listener,
// and is out of the way.
func startNodeSteer(ctx context.Context) (*target, error) {
	t := &target{name: "unitgen, steer"}
	dir, environ, err := t.nodeDir()
	if err != nil {
		return t, err
	}
	node, err := exec.LookPath("node")
	if err != nil {
		return t, err
	}
	var fds []int
	for i := range instances {
		fd, err := t.listen(t.address)
		if err != nil {
			return t, err
		}
		if err := t.bound(ctx, i+1, fd, dir, environ, node, "server.js"); err != nil {
			return t, err
		}
		fds = append(fds, fd)
	}
	if err := t.steer(fds); err != nil {
		return t, err
	}
	return t, t.awaitAll(ctx)
}

// startNodeCluster is Node's own: the primary accepts and hands each connection over.
func startNodeCluster(ctx context.Context) (*target, error) {
	t := &target{name: "Node.js cluster"}
	dir, environ, err := t.nodeDir()
	if err != nil {
		return t, err
	}
	c := exec.CommandContext(ctx, "node", "cluster.js")
	c.Dir, c.Env, c.Stderr = dir, environ, os.Stderr
	if err := t.start(c); err != nil {
		return t, err
	}
	t.balancer = []int{c.Process.Pid}
	return t, await(ctx, "tcp", t.address)
}

// startPM2 starts a daemon of PM2's own in a directory that goes with it.
func startPM2(ctx context.Context) (*target, error) {
	program, err := exec.LookPath("pm2")
	if err != nil {
		return nil, err
	}
	t := &target{name: "PM2, cluster mode"}
	dir, environ, err := t.nodeDir()
	if err != nil {
		return t, err
	}
	environ = append(environ, "PM2_HOME="+filepath.Join(dir, "pm2"), "PM2_DISABLE_VERSION_CHECK=true")
	run := func(ctx context.Context, words ...string) error {
		c := exec.CommandContext(ctx, program, words...)
		c.Dir, c.Env = dir, environ
		if out, err := c.CombinedOutput(); err != nil {
			return fmt.Errorf("pm2 %s: %w: %s", words[0], err, out)
		}
		return nil
	}
	t.onStop(func() {
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute) // the run's own may have ended
		defer cancel()
		if err := run(ctx, "kill"); err != nil {
			fmt.Fprintln(os.Stderr, "bench:", err)
		}
	})
	if err := run(ctx, "start", "server.js", "-i", strconv.Itoa(instances)); err != nil {
		return t, err
	}
	text, err := os.ReadFile(filepath.Join(dir, "pm2/pm2.pid"))
	if err != nil {
		return t, err
	}
	daemon, err := strconv.Atoi(strings.TrimSpace(string(text)))
	if err != nil {
		return t, err
	}
	t.balancer = []int{daemon}
	return t, await(ctx, "tcp", t.address)
}
