// Package export writes what other engines need to serve an app of several hosts: HAProxy, nginx
// and Caddy in front of them, keepalived for an address that moves between two fronts, and Ansible
// for a release that goes host after host.
//
// Each engine is one template beside this file, which prints one file, complete and for people to
// read and change. The package is pure, and it is not for running these engines.
package export

import (
	"embed"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"text/template"

	"github.com/unitgen/unitgen/internal/app"
	"github.com/unitgen/unitgen/internal/fault"
)

//go:embed *.tmpl
var texts embed.FS

// Engine is one of Engines.
type Engine string

const (
	HAProxy    Engine = "haproxy"
	Nginx      Engine = "nginx"
	Caddy      Engine = "caddy"
	Keepalived Engine = "keepalived"
	Ansible    Engine = "ansible"
)

// Engines are the engines, in the order of the help.
func Engines() []Engine { return []Engine{HAProxy, Nginx, Caddy, Keepalived, Ansible} }

// Host is a machine: one that runs the app or, for keepalived, a front.
type Host struct {
	Name string // as uname -n has it
	Addr netip.Addr
}

// ParseHost reads the value of --host=.
func ParseHost(s string) (Host, error) {
	name, text, ok := strings.Cut(s, "=")
	addr, err := netip.ParseAddr(strings.Trim(text, "[]"))
	addr = addr.Unmap()
	const hint = "--host=web1=10.0.0.11"
	switch {
	case !ok || name == "":
		return Host{}, fault.Input(hint, "--host= must be NAME=ADDRESS, got %q", s)
	case !isName(name):
		return Host{}, fault.Input(hint, "--host= must begin with the name of a host, of letters, digits, \"-\" and \".\", got %q", s)
	case err != nil:
		return Host{}, fault.Input(hint, "--host=%s= must have an IP address, got %q", name, text)
	case strings.EqualFold(name, "localhost"):
		return Host{}, fault.Input(hint, "--host=%s= must be the name of one host, and every machine calls itself so", name)
	case addr.Zone() != "" || addr.IsMulticast() || addr.IsLinkLocalUnicast() || addr.IsUnspecified() || addr.Is4() && nobodys(addr.As4()):
		return Host{}, fault.Input(hint, "--host=%s= must have an address that other machines can connect to, got %q", name, text)
	}
	return Host{name, addr}, nil
}

// nobodys says that no machine can have the address: network 0.0.0.0/8, and 240.0.0.0/4 with the
// broadcast address.
func nobodys(addr [4]byte) bool { return addr[0] == 0 || addr[0] >= 240 }

// isName is what may stand in the files of all engines as it is.
func isName(s string) bool {
	return len(s) <= 253 && s[0] != '-' && s[0] != '.' && !strings.ContainsFunc(s, func(r rune) bool {
		return (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') && (r < '0' || r > '9') && r != '-' && r != '.'
	})
}

// Options are what the command line says beside the app.
type Options struct {
	Hosts     []Host
	TCP       bool   // connections are passed on as they are, not requests
	Proxy     bool   // the program is told clients' addresses by the PROXY protocol
	Domain    string // whose certificate the front has; empty: no TLS
	Address   string // of keepalived, with its prefix's length
	Interface string // of keepalived
}

// Export returns the file of engine for an app. The errors of what cannot be are app.InputErrors,
// all of them.
func Export(engine Engine, a app.App, o Options) (string, error) {
	v := values{Options: o, App: string(a.Name), Word: word(a.Name)}
	if err := v.fill(engine, a); err != nil {
		return "", err
	}
	t, err := template.ParseFS(texts, string(engine)+".tmpl")
	if err != nil {
		return "", fmt.Errorf("parse template: %w", err)
	}
	var b strings.Builder
	if err := t.Execute(&b, v); err != nil {
		return "", fmt.Errorf("execute template: %w", err)
	}
	return b.String(), nil
}

// word is a name for what may have letters, digits and "_" only.
func word(n app.Name) string {
	return strings.Map(func(r rune) rune {
		if strings.ContainsRune("-.:", r) {
			return '_'
		}
		return r
	}, string(n))
}

// Group is the group of the hosts in a playbook. It is none that an inventory has already, such as
// "all", and no number.
func (v values) Group() string { return "unitgen_" + v.Word }

// Upstream is the app for nginx, which takes what follows ":" for a port.
func (v values) Upstream() string { return strings.ReplaceAll(v.App, ":", "_") }

// values is what the templates print.
type values struct {
	Options
	App     string
	Word    string
	Port    string
	Agent   string   // port of the agent; empty: none that a front can ask
	Servers []server // the hosts, or this one
	Router  int      // of keepalived, 1 to 255
	Prefix  string   // the virtual address
}

// server is where a front connects to.
type server struct {
	Name    string
	Host    string // address without the port
	Address string
}

func (v *values) fill(engine Engine, a app.App) error {
	var found []error
	if !slices.Contains(Engines(), engine) {
		return fault.Input("unitgen export haproxy "+v.App, "export knows haproxy, nginx, caddy, keepalived and ansible, got %q", engine)
	}
	found = append(found, v.checkOptions(engine)...)
	found = append(found, v.checkHosts(engine)...)
	if engine == Keepalived {
		return errors.Join(append(found, v.fillAddress()...)...)
	}
	listen, err := v.listen(a)
	found = append(found, err)
	if err == nil {
		v.Port = strconv.Itoa(int(listen.Port))
		found = append(found, v.fillServers(a, listen)...)
	}
	return errors.Join(found...)
}

// listen is the address of the app that a front connects to.
func (v *values) listen(a app.App) (app.Listen, error) {
	for _, l := range a.Listen {
		if !l.IsUnix() {
			return l, nil
		}
	}
	return app.Listen{}, fault.Input("unitgen "+v.App+" --listen=3000", "%s has no TCP port, which is what a load balancer connects to", v.App)
}

// fillServers says where the front finds the app. Without hosts that is the machine of the front.
func (v *values) fillServers(a app.App, listen app.Listen) []error {
	var found []error
	remote := len(v.Hosts) > 0 && !v.Hosts[0].Addr.IsLoopback()
	if !a.Agent.IsUnix() && a.Agent.Port > 0 {
		v.Agent = strconv.Itoa(int(a.Agent.Port))
	}
	if remote {
		if listen.Addr.IsValid() && listen.Addr.IsLoopback() {
			found = append(found, fault.Input("unitgen "+v.App+" --listen="+v.Port, "%s listens on %s, which other machines cannot connect to", v.App, listen))
		}
		if v.Agent != "" && a.Agent.Addr.IsValid() && a.Agent.Addr.IsLoopback() {
			found = append(found, fault.Input("unitgen "+v.App+" --agent="+v.Agent, "the agent of %s listens on %s, which other machines cannot ask", v.App, a.Agent))
		}
	}
	for _, h := range v.Hosts {
		v.Servers = append(v.Servers, newServer(h.Name, h.Addr, listen.Port))
	}
	if len(v.Servers) > 0 {
		return found
	}
	addr := netip.MustParseAddr("127.0.0.1")
	if listen.Addr.IsValid() && !listen.Addr.IsUnspecified() {
		addr = listen.Addr
	}
	v.Servers = []server{newServer("local", addr, listen.Port)}
	return nil
}

func newServer(name string, addr netip.Addr, port uint16) server {
	return server{name, addr.String(), netip.AddrPortFrom(addr, port).String()}
}

// checkOptions refuses options that mean nothing to the engine.
func (v *values) checkOptions(engine Engine) []error {
	var found []error
	for _, option := range []struct {
		name  string
		given bool
		of    []Engine
	}{
		{"--tcp", v.TCP, []Engine{HAProxy, Ansible}},
		{"--proxy-protocol", v.Proxy, []Engine{HAProxy}},
		{"--domain=", v.Domain != "", []Engine{Nginx, Caddy}},
		{"--virtual-address=", v.Address != "", []Engine{Keepalived}},
		{"--interface=", v.Interface != "", []Engine{Keepalived}},
	} {
		if option.given && !slices.Contains(option.of, engine) {
			found = append(found, fault.Input("unitgen export "+string(option.of[0])+" "+v.App+" "+option.name, "%s does not go with %s", option.name, engine))
		}
	}
	if v.Domain != "" && !isName(v.Domain) {
		found = append(found, fault.Input("--domain=www.example.com", "--domain= must be the name of a site, got %q", v.Domain))
	}
	return found
}

const hostsHint = "--host=web1=10.0.0.11 --host=web2=10.0.0.12"

func (v *values) checkHosts(engine Engine) []error {
	var found []error
	for i, h := range v.Hosts {
		for _, earlier := range v.Hosts[:i] {
			if h.Name == earlier.Name {
				found = append(found, fault.Input(hostsHint, "--host= names %s twice", h.Name))
			}
			if h.Addr == earlier.Addr {
				found = append(found, fault.Input(hostsHint, "--host= gives %s and %s the same address, %s", earlier.Name, h.Name, h.Addr))
			}
		}
		if h.Addr.IsLoopback() && len(v.Hosts) > 1 {
			found = append(found, fault.Input(hostsHint, "--host=%s=%s is the address of every machine for itself", h.Name, h.Addr))
		}
	}
	if engine == Ansible && len(v.Hosts) == 0 {
		found = append(found, fault.Input("--host=web1=10.0.0.11", "ansible needs a --host=NAME=ADDRESS for each machine"))
	}
	return found
}

// fillAddress checks what keepalived needs. The number of the virtual router must differ from those
// of others on the network: it is the last byte of the address.
func (v *values) fillAddress() []error {
	const hint, frontsHint = "--virtual-address=10.0.0.100/24 --interface=eth0", "--host=front1=10.0.0.2 --host=front2=10.0.0.3"
	var found []error
	prefix, err := netip.ParsePrefix(v.Address)
	switch {
	case v.Address == "":
		found = append(found, fault.Input(hint, "keepalived needs --virtual-address=, the address that moves between the fronts"))
	case err != nil:
		found = append(found, fault.Input(hint, "--virtual-address= must be ADDRESS/LENGTH, got %q", v.Address))
	case prefix.Addr().IsUnspecified() || prefix.Addr().IsMulticast() || prefix.Addr().IsLoopback() || prefix.Addr().Is4In6() ||
		prefix.Addr().Is4() && prefix.Bits() < 31 && prefix.Addr() == prefix.Masked().Addr():
		found = append(found, fault.Input(hint, "--virtual-address= must be the address of a machine, got %q", v.Address))
	default:
		bytes := prefix.Addr().AsSlice()
		v.Router, v.Prefix = max(int(bytes[len(bytes)-1]), 1), prefix.String()
	}
	switch {
	case v.Interface == "":
		found = append(found, fault.Input(hint, "keepalived needs --interface=, the network interface that gets the address"))
	case len(v.Interface) > 15 || !isName(strings.ReplaceAll(v.Interface, "_", "-")):
		found = append(found, fault.Input(hint, "--interface= must be the name of a network interface, got %q", v.Interface))
	}
	for _, h := range v.Hosts {
		if h.Addr == prefix.Addr() {
			found = append(found, fault.Input(frontsHint, "--host=%s=%s is the virtual address, which is no front's own", h.Name, h.Addr))
		}
		if err == nil && h.Addr.Is4() != prefix.Addr().Is4() {
			found = append(found, fault.Input(frontsHint, "--host=%s=%s and --virtual-address=%s are of different families", h.Name, h.Addr, v.Address))
		}
	}
	if len(v.Hosts) == 1 {
		found = append(found, fault.Input(frontsHint, "--host= names one front, and the address moves between two"))
	}
	return found
}
