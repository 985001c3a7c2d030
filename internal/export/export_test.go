package export

import (
	"flag"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"

	"github.com/unitgen/unitgen/internal/app"
)

var update = flag.Bool("update", false, "write the golden files")

func testApp() app.App {
	return app.App{Name: "web-shop", Command: []string{"/opt/app/server"}, Listen: []app.Listen{{Unix: "/run/shop"}, {Port: 3000}}, Agent: app.Listen{Port: 9999}}
}

func hosts(texts ...string) (all []Host) {
	for _, text := range texts {
		h, err := ParseHost(text)
		if err != nil {
			panic(err)
		}
		all = append(all, h)
	}
	return all
}

// Each file as a user gets it. The engines themselves check them in test/hosts.
func TestGolden(t *testing.T) {
	three := hosts("web1=10.0.0.11", "web2=10.0.0.12", "web3=fd00::13")
	for name, c := range map[string]struct {
		engine  Engine
		options Options
	}{
		"haproxy.cfg":        {HAProxy, Options{Hosts: three}},
		"haproxy-tcp.cfg":    {HAProxy, Options{Hosts: three, TCP: true, Proxy: true}},
		"haproxy-local.cfg":  {HAProxy, Options{}},
		"nginx.conf":         {Nginx, Options{Hosts: three, Domain: "www.example.com"}},
		"nginx-local.conf":   {Nginx, Options{}},
		"Caddyfile":          {Caddy, Options{Hosts: three, Domain: "www.example.com"}},
		"Caddyfile-local":    {Caddy, Options{}},
		"keepalived.conf":    {Keepalived, Options{Address: "10.0.0.100/24", Interface: "eth0"}},
		"keepalived-uc.conf": {Keepalived, Options{Address: "10.0.0.100/24", Interface: "eth0", Hosts: hosts("front1=10.0.0.2", "front2=10.0.0.3")}},
		"ansible.yml":        {Ansible, Options{Hosts: three}},
		"ansible-tcp.yml":    {Ansible, Options{Hosts: three, TCP: true}},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := Export(c.engine, testApp(), c.options)
			if err != nil {
				t.Fatal(err)
			}
			path := filepath.Join("testdata", name)
			if *update {
				if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(path)
			if err != nil || got != string(want) {
				t.Errorf("%v; with -update it becomes\n%s", err, got)
			}
			for i, line := range strings.Split(got, "\n") {
				if line != strings.TrimRight(line, " ") || len(line) > 140 {
					t.Errorf("line %d ends in a blank or is long: %q", i+1, line)
				}
			}
		})
	}
}

func TestBadInput(t *testing.T) {
	at := func(s string) netip.Addr { return netip.MustParseAddr(s) }
	two := hosts("a=10.0.0.1", "b=10.0.0.2")
	address := Options{Address: "10.0.0.100/24", Interface: "eth0"}
	for want, c := range map[string]struct {
		engine  Engine
		change  func(*app.App)
		options Options
	}{
		"export knows haproxy, nginx, caddy, keepalived and ansible": {"traefik", nil, Options{}},
		"has no TCP port":                         {HAProxy, func(a *app.App) { a.Listen = a.Listen[:1] }, Options{}},
		"listens on 127.0.0.1:3000, which other":  {HAProxy, func(a *app.App) { a.Listen = []app.Listen{{Addr: at("127.0.0.1"), Port: 3000}} }, Options{Hosts: two}},
		"the agent of web-shop listens on [::1]:": {Caddy, func(a *app.App) { a.Agent.Addr = at("::1") }, Options{Hosts: two}},
		"--host= names a twice":                   {HAProxy, nil, Options{Hosts: hosts("a=10.0.0.1", "a=10.0.0.2")}},
		"--host= gives a and b the same address":  {HAProxy, nil, Options{Hosts: hosts("a=10.0.0.1", "b=10.0.0.1")}},
		"is the address of every machine":         {HAProxy, nil, Options{Hosts: hosts("a=127.0.0.1", "b=10.0.0.1")}},
		"--proxy-protocol does not go with nginx": {Nginx, nil, Options{Proxy: true}},
		"--tcp does not go with caddy":            {Caddy, nil, Options{TCP: true}},
		"--domain= does not go with haproxy":      {HAProxy, nil, Options{Domain: "x.example.com"}},
		"--domain= must be the name":              {Nginx, nil, Options{Domain: "x;y"}},
		"ansible needs a --host=":                 {Ansible, nil, Options{}},
		"keepalived needs --virtual-address=":     {Keepalived, nil, Options{Interface: "eth0"}},
		"keepalived needs --interface=":           {Keepalived, nil, Options{Address: "10.0.0.100/24"}},
		"--virtual-address= must be ADDRESS":      {Keepalived, nil, Options{Address: "10.0.0.100", Interface: "eth0"}},
		"--virtual-address= must be the address":  {Keepalived, nil, Options{Address: "10.0.0.0/24", Interface: "eth0"}},
		"--interface= must be the name":           {Keepalived, nil, Options{Address: "10.0.0.100/24", Interface: "eth0 }"}},
		"names one front":                         {Keepalived, nil, Options{Address: address.Address, Interface: "eth0", Hosts: two[:1]}},
		"is the virtual address":                  {Keepalived, nil, Options{Address: address.Address, Interface: "eth0", Hosts: hosts("a=10.0.0.100", "b=10.0.0.1")}},
		"are of different families":               {Keepalived, nil, Options{Address: address.Address, Interface: "eth0", Hosts: hosts("a=fd00::1", "b=10.0.0.1")}},
	} {
		a := testApp()
		if c.change != nil {
			c.change(&a)
		}
		text, err := Export(c.engine, a, c.options)
		found := app.InputErrors(err)
		if len(found) != 1 || !strings.Contains(found[0].Msg, want) || found[0].Hint == "" || text != "" {
			t.Errorf("%q: got %v, which must have a hint, and %d bytes", want, err, len(text))
		}
	}
}

// TestNames exports apps whose names mean something to an engine: to YAML a key, a number or
// nothing, to Ansible every host, to nginx a port or what a regular expression has found.
func TestNames(t *testing.T) {
	for _, name := range []app.Name{"a:", "a:b", "all", "localhost", "null", "true", "1e3", "3proxy", "12:30", "web-shop.v2"} {
		a := testApp()
		a.Name = name
		text, err := Export(Ansible, a, Options{Hosts: hosts("web1=10.0.0.11")})
		if err != nil {
			t.Fatal(err)
		}
		var plays []struct {
			Name, Hosts string
			Tasks       []yaml.Node
		}
		if err := yaml.Unmarshal([]byte(text), &plays); err != nil || len(plays) != 2 {
			t.Fatalf("%s: %v\n%s", name, err, text)
		}
		if p := plays[1]; p.Name != "Release "+string(name) || !strings.HasPrefix(p.Hosts, "unitgen_") {
			t.Errorf("%s: play %q of hosts %q", name, p.Name, p.Hosts)
		}
		if want := `"unitgen undrain ` + string(name) + `"`; !strings.Contains(text, want) {
			t.Errorf("%s: %s is missing in\n%s", name, want, text)
		}
		text, err = Export(Nginx, a, Options{})
		if err != nil {
			t.Fatal(err)
		}
		for line := range strings.Lines(text) {
			word := strings.Fields(line)
			if len(word) > 1 && word[0] == "proxy_pass" && strings.Count(line, ":") != 1 {
				t.Errorf("%s: nginx takes the name for a port: %s", name, line)
			}
			if len(word) > 2 && word[1] == "Connection" && !strings.HasPrefix(word[2], "$connection_of_") {
				t.Errorf("%s: nginx takes the name for a part of an expression: %s", name, line)
			}
		}
	}
}

func TestBadHosts(t *testing.T) {
	for _, s := range []string{"", "web1", "=10.0.0.1", "web1=", "web1=host", "web1=10.0.0.1:80", "web1=0.0.0.0", "web1=::", "web1=224.0.0.1",
		"web1=fe80::1%eth0", "a b=10.0.0.1", "a\n=10.0.0.1", "localhost=10.0.0.1", "a=::ffff:0.0.0.0", "a=255.255.255.255", "a=0.0.0.1", "-a=10.0.0.1", "a\"=10.0.0.1"} {
		h, err := ParseHost(s)
		if found := app.InputErrors(err); len(found) != 1 || found[0].Hint == "" || strings.Contains(found[0].Msg, "\n") {
			t.Errorf("%q gives %v, %v", s, h, err)
		}
	}
	for s, want := range map[string]Host{
		"web1=10.0.0.1": {"web1", netip.MustParseAddr("10.0.0.1")}, "w.example.com=[fd00::1]": {"w.example.com", netip.MustParseAddr("fd00::1")},
	} {
		if h, err := ParseHost(s); err != nil || h != want {
			t.Errorf("%q gives %v, %v", s, h, err)
		}
	}
}

// FuzzParseHost: what is taken can stand in the files of all engines as it is.
func FuzzParseHost(f *testing.F) {
	f.Add("web1=10.0.0.1")
	f.Add("a=[::1]")
	f.Fuzz(func(t *testing.T, s string) {
		h, err := ParseHost(s)
		if err == nil && (strings.ContainsAny(h.Name, " \t\r\n\"'#{};\\%$") || !h.Addr.IsValid()) {
			t.Errorf("%q gives %+v", s, h)
		}
	})
}
