//go:build integration

package rig

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// bootAndHang, in the environment, makes TestMain boot a container of that suite, print its name and wait to be killed.
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
	select {}
}

// TestKilledOwner kills a process that has a container: the container dies with it, and the next Start removes what is
// left. A container whose owner lives stays.
func TestKilledOwner(t *testing.T) {
	suite := Suites[0]
	neighbour := Boot(t, suite, Options{})
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	owner := exec.Command(exe)
	owner.Env = append(os.Environ(), bootAndHang+"="+suite)
	owner.Stderr = os.Stderr
	out, err := owner.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := owner.Start(); err != nil {
		t.Fatal(err)
	}
	name, err := bufio.NewReader(out).ReadString('\n')
	if err := owner.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	owner.Wait() // "signal: killed"
	if name = strings.TrimSpace(name); err != nil {
		t.Fatal(err)
	}
	t.Logf("right after the kill: %q", hostTraces(t, name))

	Boot(t, suite, Options{})
	if traces := hostTraces(t, name); len(traces) > 0 {
		t.Errorf("left of a killed process's container after the next Start: %q", traces)
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

// TestThreads checks that one thread each is in a container's network and in its mount namespace, and none after Close.
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

// waitAlone waits until all threads are in the same namespaces, and returns these. A thread ends a moment after its
// goroutine, and says so to nobody.
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
