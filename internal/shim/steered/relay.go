package steered

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"github.com/unitgen/unitgen/internal/sock"
	"github.com/unitgen/unitgen/internal/steer"
)

// relayDial bounds the connection to an instance, which is on this host.
const relayDial = 10 * time.Second

// relay serves the connections that wait at a listener which nobody accepts from, where the kernel
// cannot move them (classic BPF): it accepts each and copies its bytes to a connection of its own
// to the same address, which the ring gives to an instance. Few connections ever wait so: those
// that came while no instance was up, or as one died. The instance sees the host's address in place
// of the client's.
//
// It returns how many waited; the copying goes on beside it until the connections end.
func (a *address) relay(fd int, log *slog.Logger) int {
	waiting, _, err := steer.Queue(fd)
	if err != nil {
		log.Error("read queue, ignoring", "address", a.String(), "error", err)
		return 0
	}
	for range waiting {
		// The descriptor may be blocking, which is for its instance to say. Should the instance
		// come back and take a connection first, the goroutine waits for the next one and relays
		// that.
		go a.relayOne(fd, log)
	}
	return waiting
}

// relayOne ends when either side has closed both ways, or fails.
func (a *address) relayOne(fd int, log *slog.Logger) {
	client, err := acceptConn(fd)
	if err != nil {
		log.Warn("accept waiting connection, ignoring", "address", a.String(), "error", err)
		return
	}
	defer client.Close()
	ctx, cancel := context.WithTimeout(context.Background(), relayDial)
	defer cancel()
	instance, err := a.dialInstance(ctx)
	if err != nil {
		log.Warn("relay waiting connection, ignoring", "address", a.String(), "error", err)
		return
	}
	defer instance.Close()
	done := make(chan struct{})
	go func() { // ends when the client has sent all, or instance is closed
		copyHalf(instance.(*net.TCPConn), client)
		close(done)
	}()
	copyHalf(client, instance.(*net.TCPConn))
	<-done
}

// dialInstance connects to the address from its own host.
func (a *address) dialInstance(ctx context.Context) (net.Conn, error) {
	var errs []error
	for _, to := range sock.Local(a.Address) {
		if to.Addr().Is4() != a.Address.Addr().Is4() && !a.DualStack {
			continue
		}
		conn, err := new(net.Dialer).DialContext(ctx, "tcp", to.String())
		if err == nil {
			return conn, nil
		}
		errs = append(errs, err)
	}
	return nil, errors.Join(errs...)
}

// copyHalf copies one direction and passes its end on.
func copyHalf(to, from *net.TCPConn) {
	if _, err := io.Copy(to, from); err != nil {
		to.SetLinger(0) // a reset on one side is a reset on the other
		to.Close()
		return
	}
	to.CloseWrite()
}

func acceptConn(fd int) (*net.TCPConn, error) {
	conn, _, err := unix.Accept4(fd, unix.SOCK_CLOEXEC)
	if err != nil {
		return nil, os.NewSyscallError("accept4", err)
	}
	file := os.NewFile(uintptr(conn), "waiting connection")
	defer file.Close()
	c, err := net.FileConn(file)
	if err != nil {
		return nil, err
	}
	return c.(*net.TCPConn), nil
}
