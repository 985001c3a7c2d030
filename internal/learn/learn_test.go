package learn

import (
	"fmt"
	"net/netip"
	"slices"
	"testing"

	"github.com/unitgen/unitgen/internal/bindnotify"
)

func seen(addresses ...string) (s bindnotify.State) {
	for _, text := range addresses {
		a := netip.MustParseAddrPort(text)
		s.Facts = append(s.Facts, bindnotify.Fact{Kind: bindnotify.Binds, Protocol: "tcp", Address: a, IPv6: a.Addr().Is6()},
			bindnotify.Fact{Kind: bindnotify.Listens, Protocol: "tcp", Address: a, IPv6: a.Addr().Is6()})
	}
	return s
}

// An app is open where its program asks to be, and nowhere else.
func TestListen(t *testing.T) {
	for _, test := range []struct {
		asked []string
		want  string
	}{
		{[]string{"0.0.0.0:80"}, "[0.0.0.0:80]"},
		{[]string{"127.0.0.1:80"}, "[127.0.0.1:80]"},
		{[]string{"[::]:80"}, "[80]"},
		{[]string{"[::1]:80"}, "[[::1]:80]"},
		{[]string{"0.0.0.0:80", "[::]:80"}, "[0.0.0.0:80 [::]:80]"},
		{[]string{"127.0.0.1:80", "[::1]:80"}, "[127.0.0.1:80 [::1]:80]"},
		{[]string{"0.0.0.0:80", "127.0.0.1:80"}, "[0.0.0.0:80]"},
		{[]string{"[::]:80", "[::1]:80"}, "[80]"},
		{[]string{"[::]:80", "127.0.0.1:80"}, "[[::]:80 127.0.0.1:80]"},
		{[]string{"[::ffff:127.0.0.1]:80"}, "[127.0.0.1:80]"},
		{[]string{"0.0.0.0:80", "0.0.0.0:80", "127.0.0.1:9000"}, "[0.0.0.0:80]"},
	} {
		if got := fmt.Sprint(Listen(seen(test.asked...), 80)); got != test.want {
			t.Errorf("a program on %v: the app on %s, want %s", test.asked, got, test.want)
		}
	}
}

func TestPorts(t *testing.T) {
	s := seen("0.0.0.0:80", "[::]:80", "127.0.0.1:0", "127.0.0.1:9000")
	s.Facts = append(s.Facts, bindnotify.Fact{Kind: bindnotify.Binds, Protocol: "tcp", Address: netip.MustParseAddrPort("0.0.0.0:81")})
	if got := Ports(s); !slices.Equal(got, []uint16{80, 9000}) {
		t.Errorf("ports are %v, want 80 and 9000", got)
	}
}
