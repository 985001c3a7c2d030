package handoff_test

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/unitgen/unitgen/internal/balance"
	"github.com/unitgen/unitgen/internal/handoff"
)

// childInstances makes the test binary a balancer for so many instances: the public listener is
// descriptor 3, the channels follow.
const childInstances = "HANDOFF_TEST_INSTANCES"

func TestMain(m *testing.M) {
	var n int
	if _, err := fmt.Sscan(os.Getenv(childInstances), &n); err == nil {
		fmt.Fprintln(os.Stderr, balanceUntilKilled(n))
		os.Exit(1)
	}
	os.Exit(m.Run())
}

// balanceUntilKilled says on standard output when it balances.
func balanceUntilKilled(instances int) error {
	d, err := handoff.New(handoff.Options{Listeners: []int{3}, Waiting: waiting, Log: slog.Default()})
	if err != nil {
		return err
	}
	var ring []uint16
	for id := 1; id <= instances; id++ {
		if err := d.Attach(id, 3+id); err != nil {
			return err
		}
		ring = append(ring, uint16(id))
	}
	d.SetRing(balance.RoundRobin, ring)
	fmt.Println("up")
	return d.Run(context.Background())
}

// TestKilledBalancer kills the balancer many times under load, wherever it is: no connection is
// lost.
func TestKilledBalancer(t *testing.T) {
	const instances, kills, clients = 3, 30, 8
	f := open(t, "tcp", "127.0.0.1:0")
	f.stop() // the child is the balancer
	channels := []*os.File{os.NewFile(uintptr(f.fd), "public")}
	for id := 1; id <= instances; id++ {
		in := newInstance(t, f, id)
		in.serve(t)
		channels = append(channels, os.NewFile(uintptr(in.dial(t)), "channel"))
	}
	var load sync.WaitGroup
	var served, failed atomic.Int64
	done := make(chan struct{})
	for range clients {
		load.Go(func() {
			for {
				select {
				case <-done:
					return
				default:
				}
				if err := once(f.addr); err != nil {
					failed.Add(1)
					t.Error(err)
					return
				}
				served.Add(1)
			}
		})
	}
	for range kills {
		before := served.Load()
		stop := balancer(t, channels, instances)
		f.await(t, func() bool { return served.Load() >= before+50 || failed.Load() > 0 })
		stop()
	}
	stop := balancer(t, channels, instances)
	defer stop()
	close(done)
	load.Wait()
	t.Logf("%d connections over %d kills", served.Load(), kills)
	for _, c := range channels[1:] {
		c.Close()
	}
}

// balancer starts one; stop kills it.
func balancer(t *testing.T, descriptors []*os.File, instances int) (stop func()) {
	t.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), fmt.Sprintf("%s=%d", childInstances, instances))
	cmd.ExtraFiles = descriptors
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	stop = func() {
		cmd.Process.Signal(unix.SIGKILL)
		cmd.Wait()
	}
	if _, err := io.ReadFull(out, make([]byte, 3)); err != nil {
		stop()
		t.Fatalf("balancer did not come up: %v", err)
	}
	return stop
}

// once makes a connection, asks once and hears the answer.
func once(addr net.Addr) error {
	conn, err := net.Dial("tcp", addr.String())
	if err != nil {
		return err
	}
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(limit))
	if _, err := io.WriteString(conn, "?\n"); err != nil {
		return err
	}
	_, err = io.ReadFull(conn, make([]byte, 1))
	return err
}
