package lifecycle

import (
	"context"
	"fmt"
	"net"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/unitgen/unitgen/internal/app"
	"github.com/unitgen/unitgen/internal/sockdiag"
	"github.com/unitgen/unitgen/internal/systemd"
)

// countEvery is how often a drain without a shim counts: as often as the shim does.
const countEvery = 200 * time.Millisecond

// Alone is the drain of one instance whose shim has died and does not come back, as the app stops.
//
// It goes by the rule of the shim, with one difference. The shim knew which connections were moved
// from one instance to another, and that knowledge has died with it. So the connections of all
// instances count for each one: they all stop.
type Alone struct {
	// Count counts the connections at the app's ports.
	Count func() (sockdiag.Stat, error)

	Began time.Time     // also of a part that the shim counted
	Limit time.Duration // the drain time-out

	// As in control.DrainParameters.
	Graceful bool
	Settle   time.Duration
}

// Wait returns when PID 1 may stop the instance: no connection is in use, or the time is up, and
// timedOut is true.
func (d Alone) Wait(ctx context.Context) (left sockdiag.Stat, timedOut bool, err error) {
	tick := time.NewTicker(countEvery)
	defer tick.Stop()
	for {
		if left, err = d.Count(); err != nil {
			return left, false, err
		}
		lasted := time.Since(d.Began)
		quiet := left.Busy == 0 && left.Queued == 0 && left.Unsure == 0
		answered := d.Graceful && lasted >= d.Settle && left.Queued == 0 && left.Waiting <= lasted
		switch {
		case quiet || answered:
			return left, false, nil
		case lasted > d.Limit:
			return left, true, nil
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return left, false, ctx.Err()
		}
	}
}

// Listeners returns the TCP ports and the unix sockets of the app's public listeners, as PID 1 has
// them open.
func Listeners(ctx context.Context, conn *systemd.Conn, name app.Name) (ports []uint16, paths []string, err error) {
	values, err := conn.Properties(ctx, name.Socket(), "Listen")
	if err != nil {
		return nil, nil, err
	}
	listen, _ := values["Listen"].([][]any)
	if ports, paths, err = listenersOf(listen); err != nil {
		return nil, nil, fmt.Errorf("read listeners of %s: %w", name.Socket(), err)
	}
	return ports, paths, nil
}

// listenersOf reads property Listen of a socket unit: pairs of a type and an address.
func listenersOf(listen [][]any) (ports []uint16, paths []string, err error) {
	for _, l := range listen {
		if len(l) != 2 {
			return nil, nil, fmt.Errorf("property Listen has an entry of %d values", len(l))
		}
		address, _ := l[1].(string)
		if l[0] != "Stream" || address == "" {
			continue
		}
		if address[0] == '/' || address[0] == '@' {
			paths = append(paths, address)
			continue
		}
		// "[::]:3000", "127.0.0.1:3000", and for a link-local address "[fe80::1]:80%eth0"
		// (socket_address_print).
		_, text, err := net.SplitHostPort(cutScope(address))
		if err != nil {
			return nil, nil, err
		}
		port, err := strconv.ParseUint(text, 10, 16)
		if err != nil {
			return nil, nil, err
		}
		ports = append(ports, uint16(port))
	}
	slices.Sort(ports)
	return slices.Compact(ports), paths, nil
}

// cutScope cuts the interface off behind the port.
func cutScope(address string) string {
	if percent := strings.IndexByte(address, '%'); percent > strings.IndexByte(address, ']') {
		return address[:percent]
	}
	return address
}
