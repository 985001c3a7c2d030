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

// backends starts n instances, each on a port of its own, behind the target's address.
func (t *target) backends(ctx context.Context, n int) ([]string, error) {
	var addresses []string
	for range n {
		one := &target{}
		t.onStop(one.stop)
		if _, err := one.group(ctx, 1); err != nil {
			return nil, err
		}
		addresses = append(addresses, one.address)
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
	c := exec.CommandContext(ctx, words[0], words[1:]...) // what they say of themselves is not kept
	if err := t.start(c); err != nil {
		return err
	}
	if err := t.awaitPort(ctx); err != nil {
		return err
	}
	t.balancer, err = family(c.Process.Pid)
	return err
}

// awaitPort returns when the target accepts connections.
func (t *target) awaitPort(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	for {
		conn, err := new(net.Dialer).DialContext(ctx, "tcp", t.address)
		if err == nil {
			return conn.Close()
		}
		timer := time.NewTimer(20 * time.Millisecond) // a proxy tells nobody when it listens
		select {
		case <-timer.C:
		case <-ctx.Done():
			return fmt.Errorf("wait for %s: %w", t.name, err)
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

func startHAProxy(ctx context.Context) (*target, error) {
	program, err := exec.LookPath("haproxy")
	if err != nil {
		return nil, err
	}
	t := &target{name: "HAProxy, tcp"}
	backends, err := t.backends(ctx, instances)
	if err != nil {
		return t, err
	}
	var b strings.Builder
	fmt.Fprintf(&b, "global\n maxconn 4000\ndefaults\n mode tcp\n timeout client 1m\n timeout server 1m\n timeout connect 5s\n"+
		"listen bench\n bind %s\n balance roundrobin\n", t.address)
	for i, address := range backends {
		fmt.Fprintf(&b, " server s%d %s\n", i, address)
	}
	return t, t.proxy(ctx, b.String(), func(path string) []string { return []string{program, "-q", "-db", "-f", path} })
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
	t := &target{name: "nginx, stream"}
	backends, err := t.backends(ctx, instances)
	if err != nil {
		return t, err
	}
	var b strings.Builder
	fmt.Fprintf(&b, "load_module %s;\ndaemon off;\nworker_processes 2;\nerror_log stderr;\n"+
		"events { worker_connections 10000; }\nstream {\n upstream bench {\n", modules[0])
	for _, address := range backends {
		fmt.Fprintf(&b, "  server %s;\n", address)
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
	t := &target{name: "systemd-socket-proxyd"}
	backends, err := t.backends(ctx, 1)
	if err != nil {
		return t, err
	}
	return t, t.proxy(ctx, "", func(string) []string {
		return []string{activate, "-l", t.address, program, "--connections-max=10000", backends[0]}
	})
}
