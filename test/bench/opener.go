package main

import (
	"bufio"
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/unitgen/unitgen/test/rig"
)

// openArg makes the bench program the Go program that opens the address which follows.
const openArg = "serve-on-address"

// opener is a program that opens its port itself, as most do.
type opener struct {
	name     string // of its steered target
	protocol string // as in target
	command  func(port string) ([]string, error)
	// introduce makes the one process that answers at an address tell its number in later answers.
	// Nil: it does by itself.
	introduce func(ctx context.Context, address string) error
}

var goOpener = opener{name: "unitgen, steer, bind() answered", command: func(port string) ([]string, error) {
	self, err := os.Executable()
	return []string{"/usr/bin/env", oneThread, self, openArg, "127.0.0.1:" + port}, err
}}

var uvicornOpener = opener{name: "unitgen, steer, bind() answered", command: func(port string) ([]string, error) {
	python, err := server("python3", "uvicorn")
	return append(python, "-B", "-c", uvicornProgram, port), err
}}

var redisOpener = opener{name: "unitgen, steer, bind() answered", protocol: "redis", introduce: introduceRedis,
	command: func(port string) ([]string, error) {
		redis, err := server("redis-server", "redis-server")
		return append(redis, "--bind", "127.0.0.1", "--port", port, "--save", "", "--maxclients", "10000", "--loglevel", "warning",
			"--protected-mode", "no"), err
	}}

// uvicornProgram answers with the number of its process. Its one argument is the port.
const uvicornProgram = `
import os, sys, uvicorn

body = b"` + pidAnswer + `%d\n" % os.getpid()
start = {"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"%d" % len(body))]}

async def app(scope, receive, send):
    if scope["type"] == "http":
        await send(start)
        await send({"type": "http.response.body", "body": body})

uvicorn.run(app, host="127.0.0.1", port=int(sys.argv[1]), log_level="error", access_log=False, lifespan="off", backlog=4096)
`

// server is how program is started: as installed, or in the root file system of many servers. needs
// is what must be there.
func server(program, needs string) ([]string, error) {
	if _, err := exec.LookPath(needs); err == nil {
		path, err := exec.LookPath(program)
		return []string{path}, err
	}
	root, err := rig.RootFS(rig.Servers(rig.Newest))
	if err == nil {
		_, err = os.Stat(filepath.Join(root, "usr/bin", needs))
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %w", needs, exec.ErrNotFound)
	}
	chroot, err := exec.LookPath("chroot")
	return []string{chroot, root, "/usr/bin/" + program}, err
}

// starts are the targets of a set.
func (o opener) starts() []func(context.Context) (*target, error) {
	return []func(context.Context) (*target, error){o.startDirect, o.startDirectAgain, o.startSteer, o.startHAProxy}
}

// open starts the program on a port of its own, and returns when it serves there.
func (o opener) open(ctx context.Context, t *target) (address string, err error) {
	port, err := freePort()
	if err != nil {
		return "", err
	}
	argv, err := o.command(strconv.Itoa(port))
	if err != nil {
		return "", err
	}
	c := exec.CommandContext(ctx, argv[0], argv[1:]...)
	c.Stderr = os.Stderr
	if err := t.start(c); err != nil {
		return "", err
	}
	address = "127.0.0.1:" + strconv.Itoa(port)
	if err := await(ctx, "tcp", address); err != nil {
		return "", err
	}
	return address, o.introduced(ctx, address)
}

func (o opener) introduced(ctx context.Context, address string) error {
	if o.introduce == nil {
		return nil
	}
	return o.introduce(ctx, address)
}

func (o opener) startDirect(ctx context.Context) (*target, error) {
	t := &target{name: "one instance, direct", protocol: o.protocol}
	var err error
	t.address, err = o.open(ctx, t)
	return t, err
}

// startDirectAgain is the same once more.
func (o opener) startDirectAgain(ctx context.Context) (*target, error) {
	t, err := o.startDirect(ctx)
	t.name += ", again"
	return t, err
}

// startSteer is what lbshim does for a program that knows of nobody else: its bind() is answered
// with a steered listener.
func (o opener) startSteer(ctx context.Context) (*target, error) {
	t := &target{name: o.name, protocol: o.protocol}
	port, err := freePort()
	if err != nil {
		return t, err
	}
	argv, err := o.command(strconv.Itoa(port))
	if err != nil {
		return t, err
	}
	t.address = "127.0.0.1:" + strconv.Itoa(port)
	var fds []int
	for i := range instances {
		fd, err := t.listen(t.address)
		if err != nil {
			return t, err
		}
		if err := t.bound(ctx, i+1, fd, "/", os.Environ(), argv...); err != nil {
			return t, err
		}
		fds = append(fds, fd)
	}
	if err := t.steerEach(fds, func() error { return o.introduced(ctx, t.address) }); err != nil {
		return t, err
	}
	return t, t.awaitAll(ctx)
}

// startHAProxy is one port for each instance, and HAProxy before them.
func (o opener) startHAProxy(ctx context.Context) (*target, error) {
	haproxy, err := exec.LookPath("haproxy")
	if err != nil {
		return nil, err
	}
	t := &target{name: "HAProxy, a port each", protocol: o.protocol}
	var backends []string
	for range instances {
		address, err := o.open(ctx, t)
		if err != nil {
			return t, err
		}
		backends = append(backends, address)
	}
	port, err := freePort()
	if err != nil {
		return t, err
	}
	t.address = "127.0.0.1:" + strconv.Itoa(port)
	return t, t.haproxy(ctx, haproxy, backends)
}

// introduceRedis has the one server at an address keep its process number under "pid", which is
// what clients ask for.
func introduceRedis(ctx context.Context, address string) error {
	conn, err := new(net.Dialer).DialContext(ctx, "tcp", address)
	if err != nil {
		return err
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(20 * time.Second)); err != nil {
		return err
	}
	if _, err := conn.Write([]byte("INFO server\r\n")); err != nil {
		return err
	}
	r := bufio.NewReader(conn)
	pid, found := "", false
	for !found {
		line, err := r.ReadString('\n')
		if err != nil {
			return fmt.Errorf("read process of redis-server: %w", err)
		}
		pid, found = strings.CutPrefix(strings.TrimRight(line, "\r\n"), "process_id:")
	}
	if _, err := fmt.Fprintf(conn, "SET pid %s\r\n", pid); err != nil {
		return err
	}
	for {
		line, err := r.ReadString('\n')
		if err != nil {
			return fmt.Errorf("set process of redis-server: %w", err)
		}
		if line == "+OK\r\n" {
			return nil
		}
	}
}
