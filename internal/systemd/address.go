package systemd

import (
	"fmt"
	"strings"

	"github.com/godbus/dbus/v5"
)

// busSockets returns the unix sockets of a D-Bus address in its order, abstract ones with a leading
// "@". Others than unix sockets are refused: a bus on which PID 1 is has one.
//
// Source: "Server Addresses" in the D-Bus specification.
func busSockets(address string) ([]string, error) {
	var sockets []string
	for alternative := range strings.SplitSeq(address, ";") {
		keys, ok := strings.CutPrefix(alternative, "unix:")
		if !ok {
			continue
		}
		for pair := range strings.SplitSeq(keys, ",") {
			key, value, _ := strings.Cut(pair, "=")
			value, err := dbus.UnescapeBusAddressValue(value)
			if err != nil {
				return nil, fmt.Errorf("parse bus address %q: %w", address, err)
			}
			switch key {
			case "path":
				sockets = append(sockets, value)
			case "abstract":
				sockets = append(sockets, "@"+value)
			}
		}
	}
	if len(sockets) == 0 {
		return nil, fmt.Errorf("parse bus address %q: it names no unix socket, as unix:path=/run/dbus/system_bus_socket does", address)
	}
	return sockets, nil
}
