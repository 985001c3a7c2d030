package app

import (
	"strings"
	"testing"
)

func TestParseName(t *testing.T) {
	for _, good := range []string{"app", "web-shop", "a", "7", "a.b", "a_b-c", "App2", strings.Repeat("x", MaxName), "a-control-b"} {
		if n, err := ParseName(good); err != nil || string(n) != good {
			t.Errorf("%q: got %q, %v", good, n, err)
		}
	}
	for bad, want := range map[string]string{
		"":                             "must not be empty",
		"list":                         "is a verb",
		"send":                         "is a verb",
		".app":                         "must not begin with",
		"-app":                         "must not begin with",
		"a/b":                          "must consist of",
		"a@b":                          "must consist of",
		"a:b":                          "must consist of",
		`a\b`:                          "must consist of",
		"a b":                          "must consist of",
		"a\n":                          "must consist of",
		"é":                            "must consist of",
		"app.service":                  `must be written without ".service": "app"`,
		"a-control":                    `must not end in "-control"`,
		"a-join":                       `must not end in "-join"`,
		"a-diag":                       `must not end in "-diag"`,
		"a-memory":                     `must not end in "-memory"`,
		"a-reload":                     `must not end in "-reload"`,
		strings.Repeat("x", MaxName+1): "must have at most 70 bytes, got 71",
	} {
		if _, err := ParseName(bad); len(InputErrors(err)) != 1 || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: got %v, want …%s…", bad, err, want)
		}
	}
}

// The longest name fits everywhere: a unit name has 255 bytes, a socket's path 107.
func TestMaxName(t *testing.T) {
	n := Name(strings.Repeat("x", MaxName))
	for _, unit := range append(n.Units(), n.Join(MaxInstances), n.WantsDir()) {
		if len(unit) > 255 {
			t.Errorf("%s has %d bytes", unit, len(unit))
		}
	}
	if p := n.ControlPath("/run/user/4294967294"); len(p) > maxUnixPath {
		t.Errorf("%s has %d bytes", p, len(p))
	}
}

func TestNameFromCommand(t *testing.T) {
	for path, want := range map[string]string{
		"./server.js": "server", "/usr/bin/gunicorn": "gunicorn", "my.app.py": "my.app", "/x/my app.js": "my-app",
		"/x/.hidden.sh": "hidden", "/x/.hidden": "hidden", "/x/café": "caf-", "/x/a@b": "a-b",
	} {
		if n, err := NameFromCommand(path); err != nil || string(n) != want {
			t.Errorf("%q: got %q, %v; want %q", path, n, err, want)
		}
	}
	for _, path := range []string{"/", "", "/usr/bin/top", "/x/---"} {
		if n, err := NameFromCommand(path); err == nil {
			t.Errorf("%q: got %q, want an error", path, n)
		}
	}
}

func TestUnitNames(t *testing.T) {
	n := Name("web-shop")
	for got, want := range map[string]string{
		n.Service(): "web-shop.service", n.Socket(): "web-shop.socket", n.ControlSocket(): "web-shop-control.socket",
		n.DiagSocket(): "web-shop-diag.socket", n.ChannelSocket(): "web-shop-channel.socket",
		n.Instance(3): "web-shop@3.service", n.InstanceSocket(3): "web-shop@3.socket", n.Join(3): "web-shop-join@3.service", n.JoinAll(): "web-shop-join.service",
		n.InstanceTemplate(): "web-shop@.service", n.InstanceSocketTemplate(): "web-shop@.socket",
		n.JoinTemplate(): "web-shop-join@.service", n.WantsDir(): "web-shop.service.wants",
		n.ControlPath("/run"): "/run/unitgen/web-shop/control",
	} {
		if got != want {
			t.Errorf("got %s, want %s", got, want)
		}
	}
}

func TestParseUnit(t *testing.T) {
	n := Name("app")
	for unit, want := range map[string]Unit{
		"app.service": {RoleShim, 0}, "app.socket": {RoleSocket, 0}, "app-control.socket": {RoleControl, 0},
		"app-diag.socket": {RoleDiag, 0}, "app-channel.socket": {RoleChannel, 0},
		"app@1.service": {RoleInstance, 1}, "app@512.socket": {RoleInstanceSocket, 512}, "app-join@7.service": {RoleJoin, 7}, "app-join.service": {RoleJoin, 0},
		"app@.service": {RoleInstance, 0}, "app@.socket": {RoleInstanceSocket, 0}, "app-join@.service": {RoleJoin, 0},
	} {
		if got, ok := n.ParseUnit(unit); !ok || got != want {
			t.Errorf("%s: got %v, %v; want %v", unit, got, ok, want)
		}
	}
	for _, unit := range []string{
		"", "app", "app@", "app@1", "app@0.service", "app@513.service", "app@01.service", "app@+1.service", "app@x.service",
		"app@1.timer", "app-join@1.socket", "web@1.service", "xapp@1.service", "app-control@1.socket", "app@1@2.service", "app@1.x.service",
	} {
		if got, ok := n.ParseUnit(unit); ok {
			t.Errorf("%s: got %v, want none", unit, got)
		}
	}
}

func FuzzParseUnit(f *testing.F) {
	f.Add("app@3.service")
	f.Fuzz(func(t *testing.T, unit string) {
		n := Name("app")
		u, ok := n.ParseUnit(unit)
		if !ok {
			return
		}
		names := map[Role][2]string{
			RoleShim: {n.Service(), ""}, RoleSocket: {n.Socket(), ""}, RoleControl: {n.ControlSocket(), ""},
			RoleDiag: {n.DiagSocket(), ""}, RoleChannel: {n.ChannelSocket(), ""},
			RoleInstance: {n.InstanceTemplate(), n.Instance(u.Instance)}, RoleJoin: {n.JoinTemplate(), n.Join(u.Instance)},
			RoleInstanceSocket: {n.InstanceSocketTemplate(), n.InstanceSocket(u.Instance)},
		}[u.Role]
		if want := names[min(u.Instance, 1)]; unit != want && !(unit == n.JoinAll() && u == Unit{Role: RoleJoin}) {
			t.Errorf("%q parses as %v, which is %q", unit, u, want)
		}
	})
}

func TestCheckInstances(t *testing.T) {
	if CheckInstances(1) != nil || CheckInstances(MaxInstances) != nil {
		t.Error("1 and 512 must be allowed")
	}
	if err := CheckInstances(0); err == nil || err.Error() != "--instances= must be between 1 and 512, got 0" {
		t.Errorf("got %v", err)
	}
}
