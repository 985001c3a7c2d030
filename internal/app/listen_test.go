package app

import (
	"strings"
	"testing"
)

func TestParseListen(t *testing.T) {
	for s, want := range map[string]string{ // value, ListenStream=
		"3000": "3000", "*:3000": "3000", ":3000": "3000", "1": "1", "65535": "65535",
		"127.0.0.1:3000": "127.0.0.1:3000", "0.0.0.0:80": "0.0.0.0:80", "[::1]:3000": "[::1]:3000", "[::]:3000": "[::]:3000",
		"[2001:DB8:0::1]:80": "[2001:db8::1]:80", "[fe80::1%eth0]:3000": "[fe80::1]:3000%%eth0",
		"/run/app.sock": "/run/app.sock", "/run/50%.sock": "/run/50%%.sock", "@app": "@app",
	} {
		l, err := ParseListen(s)
		if err != nil || l.ListenStream() != want {
			t.Errorf("%q: got %q, %v; want %q", s, l.ListenStream(), err, want)
			continue
		}
		if back, err := ParseListen(l.String()); err != nil || back != l {
			t.Errorf("%q: %q came back as %v, %v", s, l.String(), back, err)
		}
	}
}

func TestParseListenRefuses(t *testing.T) {
	for s, hint := range map[string]string{
		"": "--listen=3000", "0": "--listen=3000", "65536": "--listen=3000", "http": "--listen=3000", "03000": "--listen=3000",
		"+3000": "--listen=3000", "-1": "--listen=3000", "3000/tcp": "--listen=3000", "127.0.0.1": "--listen=3000", "127.0.0.1:": "--listen=3000",
		"localhost:80": "--listen=127.0.0.1:80", "example.com:80": "--listen=10.0.0.1:80", "::1:3000": "--listen=[::1]:3000", "[127.0.0.1]:80": "--listen=127.0.0.1:80",
		"[::ffff:192.0.2.1]:80": "--listen=192.0.2.1:80", "[::1:80": "--listen=[::1]:80", "[]:80": "--listen=10.0.0.1:80", "224.0.0.1:80": "--listen=10.0.0.1:80", "127.1:80": "--listen=10.0.0.1:80",
		"255.255.255.255:80": "--listen=10.0.0.1:80", "[fe80::1]:80": "--listen=[fe80::1%eth0]:80",
		"[fe80::1%a b]:80": "", "/": "", "@": "", "/run/x/": "", `/run/x\`: "", "/run/x ": "", "/run/a\nb": "", "/run/\xff": "",
		"/" + strings.Repeat("x", 107): "",
	} {
		l, err := ParseListen(s)
		found := InputErrors(err)
		if len(found) != 1 || !strings.HasPrefix(found[0].Msg, "--listen= ") {
			t.Errorf("%q: got %v, %v, want one InputError of --listen=", s, l, err)
		} else if found[0].Hint != hint {
			t.Errorf("%q: got hint %q, want %q", s, found[0].Hint, hint)
		}
	}
}

func parseAll(t *testing.T, s string) []Listen {
	t.Helper()
	var ls []Listen
	for _, field := range strings.Fields(s) {
		l, err := ParseListen(field)
		if err != nil {
			t.Fatal(err)
		}
		ls = append(ls, l)
	}
	return ls
}

func TestCheckListen(t *testing.T) {
	for s, separate := range map[string]bool{
		"3000": false, "3000 3001": false, "127.0.0.1:80 [::1]:80": false, "127.0.0.1:80 192.0.2.1:80": false,
		"0.0.0.0:80 [::]:80": true, "127.0.0.1:80 [::]:80": true, "[::]:80 0.0.0.0:443": false, "[::]:80 192.0.2.1:443": false,
		"[fe80::1%a]:80 [fe80::1%b]:80": false, "/run/a /run/b 80": false,
	} {
		ls := parseAll(t, s)
		if err := CheckListen(ls); err != nil {
			t.Errorf("%s: %v", s, err)
		}
		if SeparateFamilies(ls) != separate {
			t.Errorf("%s: separate families = %v, want %v", s, !separate, separate)
		}
	}
	for s, want := range map[string]string{
		"80 80":                   "--listen= names 80 twice",
		"/run/a /run/a":           "--listen= names /run/a twice",
		"80 0.0.0.0:80":           "--listen= names both 80 and 0.0.0.0:80, which overlap",
		"[::]:80 80":              "--listen= names both [::]:80 and 80, which overlap",
		"127.0.0.1:80 80":         "which overlap",
		"127.0.0.1:80 0.0.0.0:80": "which overlap",
		"[::1]:80 [::]:80":        "which overlap",
		"80 0.0.0.0:90 [::]:90":   "--listen=80 cannot stand beside separate IPv4 and IPv6 listeners",
	} {
		if err := CheckListen(parseAll(t, s)); len(InputErrors(err)) != 1 || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: got %v, want …%s…", s, err, want)
		}
	}
}

func FuzzParseListen(f *testing.F) {
	for _, s := range []string{"3000", "127.0.0.1:80", "[::1]:80", "[fe80::1%eth0]:80", "/run/x", "@x", "*:1"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		l, err := ParseListen(s)
		if err != nil {
			return
		}
		checkLine(t, l.ListenStream())
		if back, err := ParseListen(l.String()); err != nil || back != l {
			t.Errorf("%q: %q came back as %v, %v", s, l.String(), back, err)
		}
	})
}
