package main

import (
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// backends starts n instances behind the target's address, each with a listener of its own: a unix
// socket, or a TCP port.
func (t *target) backends(ctx context.Context, n int, network string) ([]string, error) {
	dir, err := os.MkdirTemp("", "bench")
	if err != nil {
		return nil, err
	}
	t.onStop(func() { os.RemoveAll(dir) })
	if err := os.Chmod(dir, 0o755); err != nil { // nginx's workers are another user
		return nil, err
	}
	var addresses []string
	for i := range n {
		address, where := filepath.Join(dir, strconv.Itoa(i)), ""
		if where = "unix:" + address; network == "tcp" {
			port, err := freePort()
			if err != nil {
				return nil, err
			}
			address, where = "127.0.0.1:"+strconv.Itoa(port), "tcp:"+strconv.Itoa(port)
		}
		if err := t.start(exec.CommandContext(ctx, serverProgram, where)); err != nil {
			return nil, err
		}
		if err := await(ctx, network, address); err != nil {
			return nil, err
		}
		if network == "unix" {
			if err := os.Chmod(address, 0o777); err != nil {
				return nil, err
			}
		}
		addresses = append(addresses, address)
	}
	port, err := freePort()
	t.address = "127.0.0.1:" + strconv.Itoa(port)
	return addresses, err
}

// proxy writes a configuration and starts a proxy with it, whose processes count as the balancer.
func (t *target) proxy(ctx context.Context, config string, argv func(path string) []string) error {
	dir, err := os.MkdirTemp("", "bench")
	if err != nil {
		return err
	}
	t.onStop(func() { os.RemoveAll(dir) })
	path := filepath.Join(dir, "proxy.conf")
	if err := os.WriteFile(path, []byte(config), 0o644); err != nil {
		return err
	}
	words := argv(path)
	c := exec.CommandContext(ctx, words[0], words[1:]...)
	c.Stderr = os.Stderr
	if err := t.start(c); err != nil {
		return err
	}
	if err := await(ctx, "tcp", t.address); err != nil {
		return err
	}
	t.balancer, err = family(c.Process.Pid)
	return err
}

// await returns when somebody accepts connections at an address.
func await(ctx context.Context, network, address string) error {
	ctx, cancel := context.WithTimeout(ctx, 20*time.Second)
	defer cancel()
	for {
		conn, err := new(net.Dialer).DialContext(ctx, network, address)
		if err == nil {
			return conn.Close()
		}
		timer := time.NewTimer(20 * time.Millisecond) // a proxy tells nobody when it listens
		select {
		case <-timer.C:
		case <-ctx.Done():
			return fmt.Errorf("wait for %s: %w", address, err)
		}
	}
}

// family is a process with its children, which are the workers of nginx.
func family(pid int) ([]int, error) {
	all := []int{pid}
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/task/%d/children", pid, pid))
	if err != nil {
		return nil, err
	}
	for _, word := range strings.Fields(string(text)) {
		child, err := strconv.Atoi(word)
		if err != nil {
			return nil, err
		}
		all = append(all, child)
	}
	return all, nil
}

func startHAProxyUnix(ctx context.Context) (*target, error) {
	return startHAProxy(ctx, "unix")
}

func startHAProxyTCP(ctx context.Context) (*target, error) {
	return startHAProxy(ctx, "tcp")
}

func startHAProxy(ctx context.Context, network string) (*target, error) {
	program, err := exec.LookPath("haproxy")
	if err != nil {
		return nil, err
	}
	t := &target{name: "HAProxy, " + network + " backends"}
	backends, err := t.backends(ctx, instances, network)
	if err != nil {
		return t, err
	}
	return t, t.haproxy(ctx, program, backends)
}

// haproxy starts HAProxy before backends.
func (t *target) haproxy(ctx context.Context, program string, backends []string) error {
	var b strings.Builder
	fmt.Fprintf(&b, "global\n maxconn 8000\ndefaults\n mode tcp\n timeout client 1m\n timeout server 1m\n timeout connect 5s\n"+
		"listen bench\n bind %s\n balance roundrobin\n", t.address)
	for i, address := range backends {
		fmt.Fprintf(&b, " server s%d %s\n", i, address)
	}
	return t.proxy(ctx, b.String(), func(path string) []string { return []string{program, "-q", "-db", "-f", path} })
}

func startNginx(ctx context.Context) (*target, error) {
	program, err := exec.LookPath("nginx")
	if err != nil {
		return nil, err
	}
	modules, err := filepath.Glob("/usr/lib/nginx/modules/ngx_stream_module.so")
	if err != nil || len(modules) == 0 {
		return nil, fmt.Errorf("nginx: its stream module: %w", exec.ErrNotFound)
	}
	t := &target{name: "nginx stream, unix backends"}
	backends, err := t.backends(ctx, instances, "unix")
	if err != nil {
		return t, err
	}
	var b strings.Builder
	fmt.Fprintf(&b, "load_module %s;\ndaemon off;\nworker_processes 2;\nerror_log stderr;\n"+
		"events { worker_connections 10000; }\nstream {\n upstream bench {\n", modules[0])
	for _, address := range backends {
		fmt.Fprintf(&b, "  server unix:%s;\n", address)
	}
	fmt.Fprintf(&b, " }\n server { listen %s reuseport; proxy_pass bench; }\n}\n", t.address)
	return t, t.proxy(ctx, b.String(), func(path string) []string {
		return []string{program, "-c", path, "-g", "pid " + path + ".pid;"}
	})
}

func startSocketProxy(ctx context.Context) (*target, error) {
	activate, err := exec.LookPath("systemd-socket-activate")
	if err != nil {
		return nil, err
	}
	const program = "/usr/lib/systemd/systemd-socket-proxyd"
	if _, err := os.Stat(program); err != nil {
		return nil, fmt.Errorf("%s: %w", program, exec.ErrNotFound)
	}
	t := &target{name: "systemd-socket-proxyd, one unix backend"}
	backends, err := t.backends(ctx, 1, "unix")
	if err != nil {
		return t, err
	}
	return t, t.proxy(ctx, "", func(string) []string {
		return []string{activate, "-l", t.address, program, "--connections-max=10000", backends[0]}
	})
}
