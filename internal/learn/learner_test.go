package learn

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/unitgen/unitgen/internal/app"
	"github.com/unitgen/unitgen/internal/bindnotify"
	"github.com/unitgen/unitgen/internal/fault"
	"github.com/unitgen/unitgen/internal/live"
)

// learner is one without a manager; what it says is in said.
func learner(said *[]string) Learner {
	return Learner{Manager: new(live.Manager), Retype: func(options string) string { return "unitgen web " + options },
		Say: func(format string, args ...any) { *said = append(*said, fmt.Sprintf(format, args...)) }}
}

func TestAddress(t *testing.T) {
	for _, test := range []struct {
		asked      []string
		userUnits  bool
		want, fail string
	}{
		{[]string{"0.0.0.0:3000"}, false, "[0.0.0.0:3000]", ""},
		{[]string{"127.0.0.1:3000", "[::1]:3000"}, false, "[127.0.0.1:3000 [::1]:3000]", ""},
		{[]string{"[::]:80"}, true, "", "the program listens on port 80, which a user's units cannot open"},
		{[]string{"127.0.0.1:3000", "127.0.0.1:9000"}, false, "",
			"the program listens on more than one port, 127.0.0.1:3000 and 127.0.0.1:9000: --listen= must say which is the app's"},
	} {
		var said []string
		got, err := learner(&said).address(app.App{Name: "web", UserUnits: test.userUnits}, seen(test.asked...))
		if test.fail != "" {
			if err == nil || err.Error() != test.fail || len(said) > 0 {
				t.Errorf("%v: %v, and said %q", test.asked, err, said)
			}
			continue
		}
		if err != nil || fmt.Sprint(got) != test.want || len(said) != 1 || !strings.HasSuffix(said[0], ": web is served there.") {
			t.Errorf("%v: %v, %v, and said %q, want %s", test.asked, got, err, said, test.want)
		}
	}
}

func TestFamily(t *testing.T) {
	for _, test := range []struct {
		asked []string
		want  []string
		says  []string // how each line begins
	}{
		{[]string{"[::]:3000"}, nil, nil},
		{[]string{"0.0.0.0:3000"}, []string{"0.0.0.0:80"}, []string{"The program listens by IPv4: web is served at 0.0.0.0:80."}},
		{[]string{"0.0.0.0:3000", "[::]:3000"}, []string{"0.0.0.0:80", "[::]:80"}, []string{"The program listens by IPv4 and IPv6 apart: web is"}},
		{[]string{"127.0.0.1:3000"}, []string{"0.0.0.0:80"}, []string{
			"Note: the program asks for 127.0.0.1:3000, and --listen=80 opens it to the network; to keep it on this machine: unitgen web --listen=127.0.0.1:3000",
			"The program listens by IPv4"}},
		{[]string{"0.0.0.0:9000"}, nil, nil}, // another port
	} {
		var said []string
		a := app.App{Name: "web", Listen: []app.Listen{{Port: 80}}, ProgramPort: 3000}
		got := learner(&said).family(a, seen(test.asked...))
		says := len(said) == len(test.says)
		for i := range said {
			says = says && strings.HasPrefix(said[i], test.says[i])
		}
		if !slices.Equal(got, test.want) || !says {
			t.Errorf("%v: got %v and said %q, want %v", test.asked, got, said, test.want)
		}
	}
}

// Nothing is started for an app whose family is known, or whose bind(2) nobody answers.
func TestFamilyIsKnown(t *testing.T) {
	for _, a := range []app.App{
		{Name: "web", Kind: app.KindBind, Listen: []app.Listen{{Addr: netip.IPv4Unspecified(), Port: 80}}},
		{Name: "web", Kind: app.KindBind, Listen: []app.Listen{{Port: 80}, {Port: 81}}},
		{Name: "web", Kind: app.KindListen, Listen: []app.Listen{{Port: 80}}},
		{Name: "web", Kind: app.KindBind, Ready: app.ReadyNotify, Listen: []app.Listen{{Port: 80}}},
	} {
		if got, err := (Learner{}).Family(t.Context(), a); got != nil || err != nil {
			t.Errorf("%+v: %v, %v", a, got, err)
		}
	}
}

func TestWhy(t *testing.T) {
	udp := bindnotify.State{Facts: []bindnotify.Fact{{Kind: bindnotify.Binds, Protocol: "udp", Address: netip.MustParseAddrPort("0.0.0.0:53")}}}
	for want, state := range map[string]bindnotify.State{
		"the program listened on no TCP port within 5s":                                          {},
		"the program has a UDP port and listened on no TCP port within 5s: unitgen balances TCP": udp,
	} {
		err := learner(nil).why(t.Context(), app.App{Name: "web"}, Trial{Unit: "unitgen-learn-web@.service", Limit: 5 * time.Second}, state, time.Time{}, ErrSilent)
		if err.Error() != want {
			t.Errorf("got %q, want %q", err, want)
		}
		if hint := fault.Hint(err); hint != "unitgen web --start-timeout=15s" && hint != "journalctl -e -u unitgen-learn-web@1.service" {
			t.Errorf("hint %q", hint)
		}
	}
}
