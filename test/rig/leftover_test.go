//go:build integration

package rig

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// bootAndHang, in the environment, makes TestMain boot a container of that suite, print its name,
// and panic at the end of its standard input: as package testing does at its time limit.
const bootAndHang = "RIG_TEST_BOOT_AND_HANG"

func TestMain(m *testing.M) {
	suite := os.Getenv(bootAndHang)
	if suite == "" {
		os.Exit(m.Run())
	}
	c, err := Start(context.Background(), suite, Options{})
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	fmt.Println(c.Name)
	io.Copy(io.Discard, os.Stdin)
	panic("test timed out")
}

// owner is a process that has a container.
type owner struct {
	*exec.Cmd
	container string
	stdin     io.Closer
}

func startOwner(t *testing.T, suite string) owner {
	t.Helper()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(exe)
	cmd.Env = append(os.Environ(), bootAndHang+"="+suite)
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	name, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		t.Fatal(err)
	}
	return owner{cmd, strings.TrimSpace(name), in}
}

// TestKilledOwner ends processes that have a container in each way that leaves them no time to
// close it: all that runs inside ends with them, and the next Start removes what is left. A
// container whose owner lives stays.
func TestKilledOwner(t *testing.T) {
	neighbour := Boot(t, Newest, Options{})
	roots, err := cgroupRoots()
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		name string
		end  func(owner) error
	}{
		{"SIGKILL", func(o owner) error { return o.Process.Kill() }},
		{"SIGTERM", func(o owner) error { return o.Process.Signal(unix.SIGTERM) }},
		{"panic", func(o owner) error { return o.stdin.Close() }},
	} {
		o := startOwner(t, Newest)
		events, err := os.Open(filepath.Join(roots[0], cgroupPrefix+o.container, "cgroup.events"))
		if err != nil {
			t.Fatal(err)
		}
		defer events.Close()
		if err := tt.end(o); err != nil {
			t.Fatal(err)
		}
		o.Wait() // "signal: killed", "exit status 2"
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
		if err := waitEmpty(ctx, events); err != nil {
			t.Errorf("%s: the container runs on: %v\n%q", tt.name, err, hostTraces(t, o.container))
		}
		cancel()

		Boot(t, Newest, Options{})
		if traces := hostTraces(t, o.container); len(traces) > 0 {
			t.Errorf("%s: left of its container after the next Start: %q", tt.name, traces)
		}
	}
	neighbour.MustExec(t, "true")
}

// namespaces returns how many threads of this process are in which network and mount namespaces.
func namespaces(t *testing.T) map[string]int {
	t.Helper()
	count := make(map[string]int)
	for _, kind := range []string{"net", "mnt"} {
		links, err := filepath.Glob("/proc/self/task/*/ns/" + kind)
		if err != nil {
			t.Fatal(err)
		}
		for _, l := range links {
			if ns, err := os.Readlink(l); err == nil { // the thread may have ended
				count[ns]++
			}
		}
	}
	return count
}

// TestThreads checks that one thread each is in a container's network and in its mount namespace,
// and none after Close.
func TestThreads(t *testing.T) {
	before := waitAlone(t)
	c := Boot(t, Suites[0], Options{})
	for range 50 {
		if conn, err := c.DialContext(t.Context(), "tcp", "127.0.0.1:1"); err == nil {
			conn.Close()
			t.Fatal("something listens on port 1")
		}
	}
	during := namespaces(t)
	for ns := range before {
		delete(during, ns)
	}
	if len(during) != 2 {
		t.Errorf("namespaces besides the host's: %v, want a network and a mount namespace", during)
	}
	for ns, n := range during {
		if n != 1 {
			t.Errorf("%d threads are in %s, want 1", n, ns)
		}
	}
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
	waitAlone(t)
}

// waitAlone waits until all threads are in the same namespaces, and returns these. A thread ends a
// moment after its goroutine, and says so to nobody.
func waitAlone(t *testing.T) map[string]int {
	t.Helper()
	for deadline := time.Now().Add(10 * time.Second); ; <-time.After(10 * time.Millisecond) {
		now := namespaces(t)
		if len(now) == 2 {
			return now
		}
		if time.Now().After(deadline) {
			t.Fatalf("threads are in namespaces %v, want one of each kind", now)
		}
	}
}
