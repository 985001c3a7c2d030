package activation

import (
	"errors"
	"net"
	"os"
	"strconv"

	"golang.org/x/sys/unix"
)

// localAddr returns the address of the socket fd in net's types, nil for families that package net
// does not know.
func localAddr(fd, sotype int) (net.Addr, error) {
	sa, err := unix.Getsockname(fd)
	if errors.Is(err, unix.EAFNOSUPPORT) { // x/sys does not know the family
		return nil, nil
	}
	if err != nil {
		return nil, os.NewSyscallError("getsockname", err)
	}
	switch sa := sa.(type) {
	case *unix.SockaddrInet4:
		return ipAddr(sa.Addr[:], sa.Port, "", sotype), nil
	case *unix.SockaddrInet6:
		return ipAddr(sa.Addr[:], sa.Port, zone(sa.ZoneId), sotype), nil
	case *unix.SockaddrUnix:
		return unixAddr(sa.Name, sotype), nil
	}
	return nil, nil
}

func ipAddr(ip net.IP, port int, zone string, sotype int) net.Addr {
	switch sotype {
	case unix.SOCK_STREAM:
		return &net.TCPAddr{IP: ip, Port: port, Zone: zone}
	case unix.SOCK_DGRAM:
		return &net.UDPAddr{IP: ip, Port: port, Zone: zone}
	default:
		return &net.IPAddr{IP: ip, Zone: zone}
	}
}

func unixAddr(name string, sotype int) net.Addr {
	network := map[int]string{unix.SOCK_STREAM: "unix", unix.SOCK_SEQPACKET: "unixpacket", unix.SOCK_DGRAM: "unixgram"}
	return &net.UnixAddr{Name: name, Net: network[sotype]}
}

// zone names the interface of a link-local address, by number where the sandbox forbids to ask
// (RestrictAddressFamilies=).
func zone(index uint32) string {
	if index == 0 {
		return ""
	}
	if i, err := net.InterfaceByIndex(int(index)); err == nil {
		return i.Name
	}
	return strconv.FormatUint(uint64(index), 10)
}
