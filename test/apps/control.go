package apps

import (
	"bufio"
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"net"
	"time"

	"github.com/unitgen/unitgen/internal/control"
	"github.com/unitgen/unitgen/test/rig"
)

// ControlPath is where the shim's control socket is.
func (a *App) ControlPath() string {
	return cmp.Or(a.Runtime, "/run") + "/unitgen/" + a.Name + "/control"
}

// DialControl connects to the shim's control socket as root.
func (a *App) DialControl() (net.Conn, error) {
	return dialControl(a.T.Context(), a.Container, a.ControlPath())
}

func dialControl(ctx context.Context, c *rig.Container, path string) (net.Conn, error) {
	conn, err := c.DialContext(ctx, "unix", path)
	if err != nil {
		return nil, err
	}
	return conn, conn.SetDeadline(time.Now().Add(Limit))
}

// Status asks the shim on its control socket.
func (a *App) Status() control.Status {
	a.T.Helper()
	status, err := a.AskStatus()
	if err != nil {
		a.T.Fatalf("ask shim for its status: %v", err)
	}
	return status
}

// AskStatus is Status while the shim may come and go.
func (a *App) AskStatus() (control.Status, error) {
	return AskStatus(a.T.Context(), a.Container, a.ControlPath())
}

// AskStatus asks the shim whose control socket is at path in the container.
func AskStatus(ctx context.Context, c *rig.Container, path string) (status control.Status, err error) {
	conn, err := dialControl(ctx, c, path)
	if err != nil {
		return status, err
	}
	defer conn.Close()
	if _, err := fmt.Fprintf(conn, "{%q:%q}\x00", "method", control.Interface+".Status"); err != nil {
		return status, err
	}
	message, err := bufio.NewReader(conn).ReadBytes(0)
	if err != nil {
		return status, err
	}
	var reply control.Reply
	if err := json.Unmarshal(message[:len(message)-1], &reply); err != nil {
		return status, err
	}
	if reply.Error != "" {
		return status, fmt.Errorf("%s: %s", reply.Error, reply.Parameters)
	}
	return status, json.Unmarshal(reply.Parameters, &status)
}

// Up is how many instances the shim says are up.
func Up(s control.Status) int {
	n := 0
	for _, in := range s.Instances {
		if in.State == "up" {
			n++
		}
	}
	return n
}

// Capacity watches how many instances are up until stop is called, which returns the fewest that
// were seen and of how many looks.
func (a *App) Capacity() (stop func() (least, looks int)) {
	end, done := make(chan struct{}), make(chan struct{})
	least, looks := -1, 0
	go func() { // ends with stop
		defer close(done)
		tick := time.NewTicker(100 * time.Millisecond)
		defer tick.Stop()
		for {
			if s, err := a.AskStatus(); err == nil {
				looks++
				if up := Up(s); least < 0 || up < least {
					least = up
				}
			}
			select {
			case <-tick.C:
			case <-end:
				return
			}
		}
	}()
	return func() (int, int) { close(end); <-done; return least, looks }
}
