package rig

import (
	"context"
	"fmt"
	"io"
	"net"
	"os/exec"
	"strings"
	"syscall"
	"testing"
)

// LAN is a network of containers: a bridge in a network namespace of its own, where the test is a
// machine too.
type LAN struct {
	pid     int // of the process that keeps the namespace
	sockets *socketThread
	ports   map[*Container]string // the bridge's ends of their cables
}

// lanBits is the length of the prefix of a LAN's addresses.
const lanBits = "/24"

// NewLAN makes a LAN for the length of a test, whose own address on it is addr, such as 10.77.0.1.
func NewLAN(t testing.TB, addr string) *LAN {
	t.Helper()
	// It ends with its input, which ends with this process.
	keeper := exec.Command("cat")
	keeper.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET}
	input, err := keeper.StdinPipe()
	if err == nil {
		err = keeper.Start()
	}
	if err != nil {
		t.Fatalf("make LAN: %v", err)
	}
	l := &LAN{pid: keeper.Process.Pid, sockets: newSocketThread(keeper.Process.Pid), ports: make(map[*Container]string)}
	t.Cleanup(func() {
		l.sockets.close()
		input.(io.Closer).Close()
		if err := keeper.Wait(); err != nil {
			t.Errorf("end LAN: %v", err)
		}
	})
	l.ip(t, "link", "add", "br0", "type", "bridge")
	l.ip(t, "address", "add", addr+lanBits, "dev", "br0")
	l.ip(t, "link", "set", "br0", "up")
	return l
}

// ip runs ip(8) in the LAN's namespace.
func (l *LAN) ip(t testing.TB, args ...string) {
	t.Helper()
	argv := append([]string{fmt.Sprintf("--net=/proc/%d/ns/net", l.pid), "ip"}, args...)
	if out, err := exec.CommandContext(t.Context(), "nsenter", argv...).CombinedOutput(); err != nil {
		t.Fatalf("ip %s: %v: %s", strings.Join(args, " "), err, out)
	}
}

// Join gives the container an interface eth0 on the LAN, with an address. It loses it when it
// reboots, and may not join again.
func (l *LAN) Join(t testing.TB, c *Container, addr string) {
	t.Helper()
	b, err := c.current()
	if err != nil {
		t.Fatal(err)
	}
	port := fmt.Sprintf("port%d", len(l.ports))
	l.ports[c] = port
	l.ip(t, "link", "add", port, "type", "veth", "peer", "name", "eth0", "netns", fmt.Sprint(b.leader))
	l.ip(t, "link", "set", port, "master", "br0", "up")
	c.MustExec(t, "ip", "address", "add", addr+lanBits, "dev", "eth0")
	c.MustExec(t, "ip", "link", "set", "eth0", "up")
}

// PowerOff ends the container as the loss of its power does: its network falls silent before a
// process dies, whose end would be told to its peers.
func (l *LAN) PowerOff(t testing.TB, c *Container) {
	t.Helper()
	l.ip(t, "link", "del", l.ports[c])
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
}

// DialContext connects to addr as a machine on the LAN does.
func (l *LAN) DialContext(ctx context.Context, network, addr string) (net.Conn, error) {
	d := net.Dialer{FallbackDelay: -1, Control: l.sockets.replace}
	return d.DialContext(ctx, network, addr)
}

// StartLoad puts load on an address of the LAN.
func (l *LAN) StartLoad(opts LoadOptions) *Load {
	opts.Dial = l.DialContext
	return StartLoad(opts)
}
