package nodecluster

import (
	"encoding/json"
	"errors"
	"net/netip"
	"reflect"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

func addresses(texts ...string) []Address {
	var all []Address
	for _, text := range texts {
		all = append(all, Address{TCP: netip.MustParseAddrPort(text)})
	}
	return all
}

func TestGivePicksTheAddress(t *testing.T) {
	app := addresses("127.0.0.1:443", "[::]:80", "192.0.2.1:443", "[::]:8080")
	for _, c := range []struct {
		asked Asked
		want  string
	}{
		{Asked{Port: 80, FD: -1}, "[::]:80"},
		{Asked{Port: 80, FD: -1, Address: "127.0.0.1"}, "[::]:80"}, // which addresses are open is the app's to say
		{Asked{Port: 443, FD: -1, Address: "192.0.2.1"}, "192.0.2.1:443"},
		{Asked{Port: 443, FD: -1}, "127.0.0.1:443"},
		{Asked{Port: 0, FD: -1}, "[::]:80"},
		{Asked{FD: 3}, "127.0.0.1:443"},
		{Asked{FD: 6}, "[::]:8080"},
	} {
		var w Worker
		_, got, err := w.Give(c.asked, app, 0)
		if err != nil || got.String() != c.want {
			t.Errorf("%+v got %s, %v, want %s", c.asked, got, err, c.want)
		}
	}
}

// A port of the program's own stands for what the app has, also a unix socket, and the program is
// told that it has that port.
func TestGiveProgramPort(t *testing.T) {
	socket := []Address{{Path: "/run/app.sock"}}
	for _, c := range []struct {
		asked Asked
		app   []Address
		name  *sockname // nil: none
		errno unix.Errno
	}{
		{asked: Asked{Port: 3000, FD: -1, Address: "127.0.0.1"}, app: addresses("[::]:80"), name: &sockname{"::", "IPv6", 3000}},
		{asked: Asked{Port: 3000, FD: -1}, app: addresses("192.0.2.1:80"), name: &sockname{"192.0.2.1", "IPv4", 3000}},
		{asked: Asked{Port: 80, FD: -1}, app: addresses("[::]:80"), name: &sockname{"::", "IPv6", 80}},
		{asked: Asked{Port: 3000, FD: -1}, app: socket, name: &sockname{"::", "IPv6", 3000}},
		{asked: Asked{Address: "/run/app.sock", FD: -1, Family: Unix}, app: socket},
		{asked: Asked{FD: 3}, app: socket},
		{asked: Asked{Port: 3001, FD: -1}, app: addresses("[::]:80"), errno: unix.ENOTSUP},
		{asked: Asked{Address: "/run/other", FD: -1, Family: Unix}, app: addresses("[::]:80"), errno: unix.ENOTSUP},
	} {
		var w Worker
		key, got, err := w.Give(c.asked, c.app, 3000)
		if c.errno != 0 {
			if refusal := new(Refusal); !errors.As(err, &refusal) || refusal.Errno != c.errno {
				t.Errorf("%+v: %v, want %v", c.asked, err, c.errno)
			}
			continue
		}
		if err != nil || got != c.app[0] || !reflect.DeepEqual(got.sockname(c.asked), c.name) {
			t.Errorf("%+v got %s as %+v, %v, want %s as %+v", c.asked, got, got.sockname(c.asked), err, c.app[0], c.name)
		}
		if listens, ok := w.Listens(c.asked); !ok || listens != c.app[0] || w.Key(listens) != key {
			t.Errorf("%+v listens on %s, %t", c.asked, listens, ok)
		}
	}
}

func TestGiveRefuses(t *testing.T) {
	app := addresses("[::]:3000")
	for _, c := range []struct {
		asked Asked
		errno unix.Errno
		want  string
	}{
		{Asked{Port: 8080, FD: -1}, unix.ENOTSUP, "give --listen=8080"},
		{Asked{Port: 53, FD: -1, Family: UDP}, unix.ENOTSUP, "exclusive: true"},
		{Asked{Address: "/run/x", FD: -1, Family: Unix}, unix.ENOTSUP, `unix socket "/run/x"`},
		{Asked{FD: 4}, unix.EBADF, "the app's addresses have 3 to 3"},
		{Asked{FD: 0}, unix.EBADF, "descriptor 0"},
	} {
		var w Worker
		_, _, err := w.Give(c.asked, app, 0)
		var refusal *Refusal
		if !errors.As(err, &refusal) || refusal.Errno != c.errno || !strings.Contains(refusal.Reason, c.want) {
			t.Errorf("%+v: %v, want %v with %q", c.asked, err, c.errno, c.want)
		}
	}
}

func TestOneServerEachAddress(t *testing.T) {
	app := addresses("[::]:3000")
	var w Worker
	asked := Asked{Port: 3000, FD: -1}
	key, _, err := w.Give(asked, app, 0)
	if err != nil {
		t.Fatal(err)
	}
	var refusal *Refusal
	if _, _, err := w.Give(Asked{Port: 3000, FD: -1, Index: 1}, app, 0); !errors.As(err, &refusal) || refusal.Errno != unix.EADDRINUSE {
		t.Errorf("the second server of a port got %v, want %v", err, unix.EADDRINUSE)
	}
	if _, ok := w.Close(key); !ok {
		t.Error("the first server is not known")
	}
	if _, _, err := w.Give(asked, app, 0); err != nil {
		t.Errorf("after the first one closed: %v", err)
	}
}

func TestReadyWhenAllAddressesAreServed(t *testing.T) {
	app := addresses("[::]:3000", "[::]:3001")
	var w Worker
	for i, asked := range []Asked{{Port: 3001, FD: -1}, {Port: 0, FD: -1}} {
		key, address, err := w.Give(asked, app, 0)
		if err != nil {
			t.Fatal(err)
		}
		if n := len(w.Missing(app)); n != len(app)-i {
			t.Errorf("%d addresses are missing before server %d listens, want %d", n, i, len(app)-i)
		}
		asked.Port = int(address.TCP.Port()) // the message has the real one
		if _, ok := w.Listens(asked); !ok {
			t.Errorf("server %s is not known", key)
		}
	}
	if missing := w.Missing(app); len(missing) > 0 {
		t.Errorf("missing: %v", missing)
	}
	if _, ok := w.Listens(Asked{Port: 9999, FD: -1}); ok {
		t.Error("a socket that the program opened by itself counts")
	}
	if _, ok := w.Close(Asked{Port: 3001, FD: -1}.key()); !ok || len(w.Missing(app)) != 1 {
		t.Errorf("missing after one closed: %v", w.Missing(app))
	}
}

// A shim that takes over reads what the one before it knew.
func TestWorkerSurvivesJSON(t *testing.T) {
	app := addresses("[::]:3000")
	var w Worker
	if _, _, err := w.Give(Asked{Port: 3000, FD: -1}, app, 0); err != nil {
		t.Fatal(err)
	}
	w.Listens(Asked{Port: 3000, FD: -1})
	text, err := json.Marshal(w)
	if err != nil {
		t.Fatal(err)
	}
	var back Worker
	if err := json.Unmarshal(text, &back); err != nil || len(back.Missing(app)) != 0 {
		t.Errorf("%s came back as %+v, %v", text, back, err)
	}
	if _, ok := back.Close(Asked{Port: 3000, FD: -1}.key()); !ok {
		t.Error("its key is not known any more")
	}
}

func TestAllShareTheTicketKeysOfTheFirst(t *testing.T) {
	at := Address{TCP: netip.MustParseAddrPort("[::]:443")}
	tickets := make(Tickets)
	for _, data := range []string{`{"ticketKeys":"01"}`, `{"ticketKeys":"02"}`} {
		if use := tickets.Share(at, json.RawMessage(data)); string(use) != `{"ticketKeys":"01"}` {
			t.Errorf("%s is to use %s", data, use)
		}
	}
	if use := tickets.Share(Address{TCP: netip.MustParseAddrPort("[::]:80")}, nil); use != nil {
		t.Errorf("a server without TLS is to use %s", use)
	}
	text, err := json.Marshal(tickets)
	back := make(Tickets)
	if err != nil || json.Unmarshal(text, &back) != nil || string(back[at]) != `{"ticketKeys":"01"}` {
		t.Errorf("%s came back as %v, %v", text, back, err)
	}
}
