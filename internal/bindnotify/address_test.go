package bindnotify

import (
	"net/netip"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

func TestPick(t *testing.T) {
	const four, six = unix.AF_INET, unix.AF_INET6
	for _, c := range []struct {
		listeners string
		port      uint16 // --program-port=
		domain    int
		ask       string
		want      string
		how       fit
	}{
		{"0.0.0.0:80", 0, four, "0.0.0.0:80", "0.0.0.0:80", fits},
		{"0.0.0.0:80", 0, four, "0.0.0.0:81", "", noFit},
		{"0.0.0.0:80", 0, four, "127.0.0.1:80", "0.0.0.0:80", fitsWider},
		{"127.0.0.1:80", 0, four, "0.0.0.0:80", "127.0.0.1:80", fits},
		{"127.0.0.1:80", 0, four, "127.0.0.1:80", "127.0.0.1:80", fits},
		{"10.0.0.1:80", 0, four, "127.0.0.1:80", "", noFit},
		{"10.0.0.1:80", 0, four, "10.0.0.2:80", "", noFit},
		{"[::]:80", 0, four, "0.0.0.0:80", "[::]:80", noFamily},
		{"[::]:80", 0, four, "127.0.0.1:80", "[::]:80", noFamily},
		{"[::]:80", 0, six, "[::]:80", "[::]:80", fits},
		{"[::]:80", 0, six, "[::1]:80", "[::]:80", fitsWider},
		{"[::]:80", 0, six, "[::ffff:127.0.0.1]:80", "[::]:80", fitsWider},
		{"0.0.0.0:80", 0, six, "[::]:80", "0.0.0.0:80", fits},
		{"127.0.0.1:80", 0, six, "[::1]:80", "127.0.0.1:80", fits},
		{"0.0.0.0:80 [::]:80", 0, six, "[::]:80", "[::]:80", fits},
		{"[::]:80 0.0.0.0:80", 0, four, "0.0.0.0:80", "0.0.0.0:80", fits},
		{"0.0.0.0:80 127.0.0.1:81", 0, four, "127.0.0.1:81", "127.0.0.1:81", fits},
		{"10.0.0.1:80 127.0.0.1:80", 0, four, "127.0.0.1:80", "127.0.0.1:80", fits},
		{"0.0.0.0:80", 3000, four, "0.0.0.0:3000", "0.0.0.0:80", fits},
		{"0.0.0.0:80", 3000, four, "0.0.0.0:80", "0.0.0.0:80", fits},
		{"0.0.0.0:80", 3000, four, "0.0.0.0:3001", "", noFit},
		{"", 0, four, "0.0.0.0:80", "", noFit},
	} {
		var listeners []Listener
		for _, address := range strings.Fields(c.listeners) {
			listeners = append(listeners, Listener{Address: netip.MustParseAddrPort(address)})
		}
		i, how := pick(listeners, c.port, c.domain, netip.MustParseAddrPort(c.ask))
		got := ""
		if how != noFit {
			got = listeners[i].Address.String()
		}
		if got != c.want || how != c.how {
			t.Errorf("%s of family %d at %q gets %q, %d; want %q, %d", c.ask, c.domain, c.listeners, got, how, c.want, c.how)
		}
	}
}

// Whatever a program gives to bind is an address as the kernel would read it, or none.
func FuzzParseAddress(f *testing.F) {
	f.Add(unix.AF_INET, []byte{2, 0, 0, 80, 127, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0})
	f.Add(unix.AF_INET6, append([]byte{10, 0, 0, 80}, make([]byte, 24)...))
	f.Fuzz(func(t *testing.T, domain int, raw []byte) {
		raw = raw[:min(len(raw), longestAddress)]
		address, ok := parseAddress(domain, raw)
		if !ok {
			return
		}
		if !address.IsValid() || address.Addr().Is4() != (domain == unix.AF_INET) || len(raw) < shortestAddress {
			t.Errorf("%d, %v is read as %v", domain, raw, address)
		}
		pick([]Listener{{Address: netip.MustParseAddrPort("[::]:80")}}, 0, domain, address)
	})
}

// What is read of a supervisor's state is what one would write, and shows as nothing else on a
// terminal.
func FuzzParseFact(f *testing.F) {
	f.Add(Fact{Kind: Answered, Protocol: "tcp", Address: netip.MustParseAddrPort("0.0.0.0:80"), Program: "x"}.line())
	f.Add("hidden - 4 - - user sudo")
	f.Fuzz(func(t *testing.T, line string) {
		fact, ok := parseFact(line)
		if !ok {
			return
		}
		if fact.line() != line+"\n" {
			t.Errorf("%q is read as %q", line, fact.line())
		}
		_, text := fact.Words("app")
		what, hint := State{Facts: []Fact{fact}}.Problem("app", []netip.AddrPort{netip.MustParseAddrPort("0.0.0.0:80")})
		for _, text := range []string{text, what, hint} {
			if strings.ContainsFunc(text, func(r rune) bool { return r < ' ' || r >= 0x7f }) {
				t.Errorf("%q says %q", line, text)
			}
		}
	})
}

// What a supervisor logs can be read again, and says the same then; what it would not log cannot.
func TestParseWords(t *testing.T) {
	four, six := netip.MustParseAddrPort("0.0.0.0:80"), netip.MustParseAddrPort("[::]:8080")
	for _, f := range []Fact{
		{Kind: OtherFamily, Address: four, Listener: six, Program: "python3"},
		{Kind: Hidden, Reason: reasonUser, Program: "sudo"},
		{Kind: Hidden, Reason: reasonFile, Program: "?"},
		{Kind: Hidden, Reason: reasonAncestry},
		{Kind: WantsNotification, Program: "podman"},
	} {
		_, text := f.Words("app")
		got, ok := ParseWords(Prefix + text + " instance=1")
		_, again := got.Words("app")
		if !ok || again != text {
			t.Errorf("%q is read as %q, %t", text, again, ok)
		}
	}
	for _, line := range []string{
		"the program binds 0.0.0.0:80 with IPv4, but the app's listener there is IPv6: unitgen app --listen=0.0.0.0:80",
		Prefix + "the program binds 0.0.0.0:80 by IPv4, and that is that: rm -rf / --listen=0.0.0.0:80",
		Prefix + "the program binds x with IPv4, but the app's listener there is IPv6: unitgen app --listen=0.0.0.0:80",
		Prefix + "\x1b[2J wants seccomp notification for itself, which the kernel refuses below that of the balancer: x",
		Prefix,
	} {
		if f, ok := ParseWords(line); ok {
			t.Errorf("%q is read as %+v", line, f)
		}
	}
}
