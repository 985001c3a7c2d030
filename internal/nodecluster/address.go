package nodecluster

import (
	"cmp"
	"fmt"
	"net/netip"
	"strings"
)

// Address is an address of an app: an address and a port of TCP, or the path of a unix socket. Its
// text is that of netip.AddrPort, or the path.
type Address struct {
	TCP  netip.AddrPort // zero for a unix socket
	Path string
}

// IsUnix reports whether the address is a unix socket.
func (a Address) IsUnix() bool { return a.Path != "" }

func (a Address) String() string {
	if a.IsUnix() {
		return a.Path
	}
	return a.TCP.String()
}

// MarshalText is String; an Address is a key of objects too.
func (a Address) MarshalText() ([]byte, error) {
	if a.IsUnix() {
		return []byte(a.Path), nil
	}
	return a.TCP.MarshalText()
}

// UnmarshalText reads what MarshalText has written.
func (a *Address) UnmarshalText(text []byte) error {
	*a = Address{}
	if strings.HasPrefix(string(text), "/") {
		a.Path = string(text)
		return nil
	}
	if err := a.TCP.UnmarshalText(text); err != nil {
		return fmt.Errorf("parse address: %w", err)
	}
	return nil
}

// sockname returns the result of net.Server.address() for an address; nil for the path of a unix
// socket, which Node knows. Node compares the port with the requested port, and refuses to listen
// if they differ (checkBindError in lib/net.js).
func (a Address) sockname(asked Asked) *sockname {
	ip := a.TCP.Addr().Unmap()
	switch {
	case asked.Family == Unix, a.IsUnix() && asked.Port == 0:
		return nil
	case a.IsUnix():
		ip = netip.IPv6Unspecified()
	}
	n := &sockname{Address: ip.String(), Family: "IPv6", Port: cmp.Or(asked.Port, int(a.TCP.Port()))}
	if ip.Is4() {
		n.Family = "IPv4"
	}
	return n
}

type sockname struct {
	Address string `json:"address"`
	Family  string `json:"family"`
	Port    int    `json:"port"`
}
