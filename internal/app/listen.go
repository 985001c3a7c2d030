package app

import (
	"errors"
	"net/netip"
	"strconv"
	"strings"
)

// Listen is one address that an app listens on: a TCP port or a unix socket.
type Listen struct {
	Addr netip.Addr // may have a zone; zero means every address, IPv4 and IPv6 (a bare port)
	Port uint16     // not 0, unless Unix is set
	Unix string     // absolute path, or "@name" for an abstract socket; then Addr and Port are zero
}

// maxUnixPath is sizeof(sun_path) without the final NUL that systemd wants (unix(7),
// socket_address_parse()).
const maxUnixPath = 107

// ParseListen reads the value of --listen=: 3000, *:3000, 127.0.0.1:3000, [::1]:3000,
// [fe80::1%eth0]:3000, /run/app.sock or @app. Names of hosts and services are refused, as PID 1
// does not resolve them.
func ParseListen(s string) (Listen, error) {
	if strings.HasPrefix(s, "/") || strings.HasPrefix(s, "@") {
		return parseUnix(s)
	}
	host, portText := "", s
	if i := strings.LastIndexByte(s, ':'); i >= 0 {
		host, portText = s[:i], s[i+1:]
		if host == "" {
			host = "*"
		}
	}
	port, err := strconv.ParseUint(portText, 10, 16)
	if err != nil || port == 0 || strconv.FormatUint(port, 10) != portText {
		return Listen{}, inputErrorf("--listen=3000", "--listen= must be PORT, ADDRESS:PORT, [IPV6]:PORT or /PATH with a port from 1 to 65535, got %q", s)
	}
	l := Listen{Port: uint16(port)}
	if host == "" || host == "*" {
		return l, nil
	}
	inner, bracketed := strings.CutPrefix(host, "[")
	if bracketed {
		inner, bracketed = strings.CutSuffix(inner, "]")
	}
	addr, err := netip.ParseAddr(inner)
	switch {
	case err != nil && host == "localhost":
		return Listen{}, inputErrorf("--listen=127.0.0.1:"+portText, "--listen= takes addresses, not names, got %q", s)
	case err != nil:
		return Listen{}, inputErrorf("--listen=10.0.0.1:"+portText, "--listen= must begin with an IP address, got %q", s)
	case addr.Is4() && bracketed:
		return Listen{}, inputErrorf("--listen="+inner+":"+portText, "--listen= takes brackets around IPv6 addresses only, got %q", s)
	case addr.Is6() && !bracketed:
		return Listen{}, inputErrorf("--listen=["+inner+"]:"+portText, "--listen= needs brackets around an IPv6 address, got %q", s)
	case addr.Is4In6():
		return Listen{}, inputErrorf("--listen="+addr.Unmap().String()+":"+portText, "--listen= takes IPv4 addresses as such, got %q", s)
	case addr.IsMulticast(), addr == netip.AddrFrom4([4]byte{255, 255, 255, 255}):
		return Listen{}, inputErrorf("--listen=10.0.0.1:"+portText, "--listen= must have an address that a machine can have, got %q", s)
	case addr.Is6() && addr.IsLinkLocalUnicast() && addr.Zone() == "": // bind(2) fails with EINVAL
		return Listen{}, inputErrorf("--listen=["+inner+"%eth0]:"+portText, "--listen= needs the interface of a link-local address, got %q", s)
	case addr.Zone() != "" && !interfaceName(addr.Zone()):
		return Listen{}, inputErrorf("", "--listen= has a scope that is no interface name, got %q", s)
	}
	l.Addr = addr
	return l, nil
}

// interfaceName is ifname_valid() of src/basic/socket-util.c, narrowed to what needs no escaping in
// a unit file.
func interfaceName(s string) bool {
	if s == "" || len(s) > 15 || s == "." || s == ".." {
		return false
	}
	for _, r := range s {
		if r <= ' ' || r >= 0x7f || strings.ContainsRune(`%:/"'\`, r) {
			return false
		}
	}
	return true
}

func parseUnix(s string) (Listen, error) {
	switch {
	case len(s) < 2:
		return Listen{}, inputErrorf("", "--listen= must be the path of a socket, got %q", s)
	case len(s) > maxUnixPath:
		return Listen{}, inputErrorf("", "--listen= is a socket path of %d bytes, but only %d fit: %q", len(s), maxUnixPath, s)
	case rawLineProblem(s) != "":
		return Listen{}, inputErrorf("", "--listen= %s: %q", rawLineProblem(s), s)
	case strings.HasSuffix(s, "/") || strings.HasSuffix(s, `\`) || strings.TrimSpace(s) != s:
		return Listen{}, inputErrorf("", "--listen= must not end in a slash, a blank or a backslash: %q", s)
	}
	return Listen{Unix: s}, nil
}

// IsUnix reports whether l is a unix socket.
func (l Listen) IsUnix() bool { return l.Unix != "" }

// String is the shortest text that ParseListen reads as l.
func (l Listen) String() string {
	switch {
	case l.IsUnix():
		return l.Unix
	case !l.Addr.IsValid():
		return strconv.Itoa(int(l.Port))
	}
	return netip.AddrPortFrom(l.Addr, l.Port).String()
}

// ListenStream writes l as the value of ListenStream= (systemd.socket(5)): as String does, but with
// the scope at the end, [fe80::1]:3000%eth0, and "%" doubled.
func (l Listen) ListenStream() string {
	if zone := l.Addr.Zone(); zone != "" {
		l.Addr = l.Addr.WithZone("")
		return l.String() + "%%" + zone
	}
	return strings.ReplaceAll(l.String(), "%", "%%")
}

// Specific reports whether l names one address. The address may not exist yet when the socket is
// bound, so such a socket needs FreeBind= (systemd.socket(5)).
func (l Listen) Specific() bool {
	return !l.IsUnix() && l.Addr.IsValid() && !l.Addr.IsUnspecified()
}

// SeparateFamilies reports whether ls has IPv4 and IPv6 addresses of one port, so that the IPv6
// wildcard must not take IPv4 too (BindIPv6Only=ipv6-only); PID 1 would fail to bind the second one
// otherwise.
func SeparateFamilies(ls []Listen) bool {
	for _, six := range ls {
		if six.IsUnix() || !six.Addr.Is6() || !six.Addr.IsUnspecified() {
			continue
		}
		for _, four := range ls {
			if four.Addr.Is4() && four.Port == six.Port {
				return true
			}
		}
	}
	return false
}

// CheckListen returns an InputError for each address that another one of ls covers already, and for
// bare ports beside separate IPv4 and IPv6 listeners.
func CheckListen(ls []Listen) error {
	var found inputErrors
	separate := SeparateFamilies(ls)
	for i, l := range ls {
		for _, earlier := range ls[:i] {
			if l == earlier {
				found.addf("", "--listen= names %s twice", l)
			} else if overlap(l, earlier) {
				found.addf("", "--listen= names both %s and %s, which overlap", earlier, l)
			}
		}
		if separate && !l.IsUnix() && !l.Addr.IsValid() {
			// BindIPv6Only= holds for the whole socket unit, so this port would quietly lose IPv4.
			found.addf(strings.ReplaceAll("--listen=0.0.0.0:N --listen=[::]:N", "N", l.String()),
				"--listen=%s cannot stand beside separate IPv4 and IPv6 listeners", l)
		}
	}
	return found.err()
}

func overlap(a, b Listen) bool {
	if a.IsUnix() || b.IsUnix() || a.Port != b.Port {
		return false
	}
	return covers(a, b) || covers(b, a)
}

// covers reports whether wide is a wildcard that takes the connections for l's address too. The
// IPv6 wildcard never covers IPv4: SeparateFamilies sees to that.
func covers(wide, l Listen) bool {
	switch {
	case !wide.Addr.IsValid():
		return true
	case !wide.Addr.IsUnspecified() || !l.Addr.IsValid():
		return false
	}
	return wide.Addr.Is4() == l.Addr.Is4()
}

// examplePort is what a hint about an option with an address beside the app's own has as its value.
func examplePort(option string) string {
	if option == "--metrics=" {
		return "127.0.0.1:9464"
	}
	return "9999"
}

// parseAddress reads the value of an option such as --agent=, in the form of --listen=.
func parseAddress(option, s string) (Listen, error) {
	l, err := ParseListen(s)
	if refused, ok := errors.AsType[*InputError](err); ok {
		in := strings.NewReplacer("--listen=", option, "3000", "9999")
		return l, &InputError{Msg: strings.ReplaceAll(refused.Msg, "--listen=", option), Hint: in.Replace(refused.Hint)}
	}
	return l, err
}

// checkBeside checks an address, given by an option, against the others of the app.
func (a App) checkBeside(option string, l Listen, found *inputErrors) {
	hint := option + examplePort(option)
	for _, own := range a.Listen {
		if own == l || overlap(own, l) || overlap(l, own) {
			found.addf(hint, "%s%s is the app's own --listen=%s; it must be an address beside it", option, l, own)
		}
	}
	if option == "--metrics=" && a.Agent != (Listen{}) && (a.Agent == l || overlap(a.Agent, l) || overlap(l, a.Agent)) {
		found.addf(hint, "%s%s is that of --agent=%s; each needs an address of its own", option, l, a.Agent)
	}
	if a.UserUnits && !l.IsUnix() && l.Port < 1024 {
		found.addf(hint, "%s%s is a port below 1024, which a user's units cannot open", option, l)
	}
}
