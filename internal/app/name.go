package app

import (
	"path/filepath"
	"strconv"
	"strings"
)

// Name is the name of an app, the NAME of NAME.service. systemd may refuse a Name that did not come
// from ParseName or NameFromCommand.
type Name string

// MaxName is the longest name in bytes. Unit names would allow more (255, systemd.unit(5)), but a
// unix socket's path has 107 bytes (unix(7)), and below a user's manager the control socket is
// /run/user/4294967294/unitgen/NAME/control.
const MaxName = 107 - len("/run/user/4294967294/unitgen/") - len("/control")

// ParseName returns s as a Name, or an InputError that says why it cannot name an app.
func ParseName(s string) (Name, error) {
	switch {
	case s == "":
		return "", inputErrorf("", "the app's name must not be empty")
	case reserved(s):
		return "", inputErrorf("", "%q is a verb of unitgen and cannot name an app", s)
	case len(s) > MaxName:
		return "", inputErrorf("", "the app's name must have at most %d bytes, got %d: %q", MaxName, len(s), s)
	case s[0] == '.' || s[0] == '-':
		return "", inputErrorf("", "the app's name must not begin with %q: %q", s[:1], s)
	}
	for _, r := range s {
		if !nameRune(r) {
			return "", inputErrorf("", "the app's name must consist of letters, digits and \"-_.\", got %q in %q", r, s)
		}
	}
	for _, suffix := range []string{".service", ".socket", ".target", ".timer", ".slice", ".mount"} {
		if base, ok := strings.CutSuffix(s, suffix); ok {
			return "", inputErrorf("", "the app's name must be written without %q: %q", suffix, base)
		}
	}
	for _, suffix := range []string{"-control", "-diag", "-join", "-channel", "-memory", "-reload", "-agent", "-metrics"} {
		if base, ok := strings.CutSuffix(s, suffix); ok {
			return "", inputErrorf("", "the app's name must not end in %q: app %q would have units of the same names", suffix, base)
		}
	}
	return Name(s), nil
}

// NameFromCommand names an app after its program: the base name without its last extension, each
// byte that a name cannot hold replaced by "-". It fails as ParseName does when that does not give
// a name.
func NameFromCommand(path string) (Name, error) {
	base := filepath.Base(path)
	if ext := filepath.Ext(base); ext != "" && ext != base {
		base = strings.TrimSuffix(base, ext)
	}
	base = strings.Map(func(r rune) rune {
		if nameRune(r) {
			return r
		}
		return '-'
	}, base)
	return ParseName(strings.TrimLeft(base, "-."))
}

// nameRune leaves out, of the characters of a unit's name (VALID_CHARS in src/basic/unit-name.c),
// "@", which separates the instance, "\", which only escapes, and ":", which a name of a descriptor
// must not have: PID 1 and the balancer name them after units.
func nameRune(r rune) bool {
	return r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || strings.ContainsRune("-_.", r)
}

func reserved(s string) bool {
	switch s {
	case "list", "ls", "status", "top", "logs", "scale", "remove", "diff", "import", "export", "drain", "undrain", "handover", "doctor",
		"completion", "help", "check", "send", "start", "stop", "restart", "reload":
		return true
	}
	return false
}

// Service is the unit of the shim, app.service.
func (n Name) Service() string { return string(n) + ".service" }

// Socket is the unit of the parking listeners, app.socket.
func (n Name) Socket() string { return string(n) + ".socket" }

// ControlSocket is the unit of the shim's control socket, app-control.socket.
func (n Name) ControlSocket() string { return string(n) + "-control.socket" }

// Instance is the unit of instance i, app@i.service.
func (n Name) Instance(i int) string { return string(n) + "@" + strconv.Itoa(i) + ".service" }

// InstanceSocket is the unit of instance i's listeners, app@i.socket.
func (n Name) InstanceSocket(i int) string { return string(n) + "@" + strconv.Itoa(i) + ".socket" }

// JoinAll is the unit that hands the listeners of all instances to the shim when the app starts,
// app-join.service.
func (n Name) JoinAll() string { return string(n) + "-join.service" }

// Join is the unit that does so for instance i later, app-join@i.service.
func (n Name) Join(i int) string { return string(n) + "-join@" + strconv.Itoa(i) + ".service" }

// DiagSocket is the unit of the shim's view of the kernel's TCP sockets, app-diag.socket.
func (n Name) DiagSocket() string { return string(n) + "-diag.socket" }

// ChannelSocket is the unit of the socket to which Node.js instances connect, app-channel.socket.
func (n Name) ChannelSocket() string { return string(n) + "-channel.socket" }

// MemoryService and MemoryTimer look after the memory of the instances: app-memory.service,
// app-memory.timer.
func (n Name) MemoryService() string { return string(n) + "-memory.service" }
func (n Name) MemoryTimer() string   { return string(n) + "-memory.timer" }

// ReloadService rolls the app when ReloadTimer or ReloadPath says so: app-reload.service, .timer
// and .path.
func (n Name) ReloadService() string { return string(n) + "-reload.service" }
func (n Name) ReloadTimer() string   { return string(n) + "-reload.timer" }
func (n Name) ReloadPath() string    { return string(n) + "-reload.path" }

// AgentSocket and AgentService report the app's state to load balancers: app-agent.socket,
// app-agent.service.
func (n Name) AgentSocket() string  { return string(n) + "-agent.socket" }
func (n Name) AgentService() string { return string(n) + "-agent.service" }

// MetricsSocket and MetricsService answer scrapes of Prometheus: app-metrics.socket,
// app-metrics.service.
func (n Name) MetricsSocket() string  { return string(n) + "-metrics.socket" }
func (n Name) MetricsService() string { return string(n) + "-metrics.service" }

// Triggers lists the units that start when the app runs and are triggered by time, a file or a
// connection. They start with the app, by links in WantsDir, and stop with it. An app has only
// those that its settings ask for.
func (n Name) Triggers() []string {
	return []string{n.AgentSocket(), n.MemoryTimer(), n.MetricsSocket(), n.ReloadPath(), n.ReloadTimer()}
}

// InstanceTemplate is app@.service.
func (n Name) InstanceTemplate() string { return string(n) + "@.service" }

// InstanceSocketTemplate is app@.socket.
func (n Name) InstanceSocketTemplate() string { return string(n) + "@.socket" }

// JoinTemplate is app-join@.service.
func (n Name) JoinTemplate() string { return string(n) + "-join@.service" }

// WantsDir is the directory beside the unit files whose links are the instances, app.service.wants.
func (n Name) WantsDir() string { return n.Service() + ".wants" }

// ChannelName is the base name of the channel socket's path, beside the control socket.
const ChannelName = "channel"

// HandoffName and the number of an instance are the base name of the socket on which it gets its
// channel on the handoff path, beside the control socket.
const HandoffName = "handoff@"

// JoinedName is the base name of the directory beside the control socket that has a directory, by
// number, for each instance whose listeners the shim has, and JoinedFile the file in that.
const (
	JoinedName = "joined"
	JoinedFile = "noted"
)

// Units lists all unit files that an app can have, sorted; App.Units lists those that it has.
func (n Name) Units() []string {
	// In byte order "-" sorts before "." before "@".
	return []string{n.AgentService(), n.AgentSocket(), n.ChannelSocket(), n.ControlSocket(), n.DiagSocket(), n.JoinAll(), n.JoinTemplate(), n.MemoryService(), n.MemoryTimer(),
		n.MetricsService(), n.MetricsSocket(),
		n.ReloadPath(), n.ReloadService(), n.ReloadTimer(), n.Service(), n.Socket(), n.InstanceTemplate(), n.InstanceSocketTemplate()}
}

// Pin is the drop-in that ties instance i to its CPU, relative to the directory of the unit files.
func (n Name) Pin(i int) string { return n.Instance(i) + ".d/50-unitgen-pin.conf" }

// ParsePin says which instance's Pin the path is; false if it is none.
func (n Name) ParsePin(path string) (instance int, ok bool) {
	unit, _ := strings.CutSuffix(path, ".d/50-unitgen-pin.conf")
	u, ok := n.ParseUnit(unit)
	return u.Instance, ok && u.Role == RoleInstance && u.Instance > 0 && path == n.Pin(u.Instance)
}

// ControlPath is the path of the control socket below runtimeDir, which is /run or, for a user's
// units, $XDG_RUNTIME_DIR.
func (n Name) ControlPath(runtimeDir string) string {
	return filepath.Join(runtimeDir, "unitgen", string(n), "control")
}

// Role is the part that a unit plays in its app.
type Role int

// The roles; the zero Role is none.
const (
	RoleShim           Role = iota + 1 // app.service
	RoleSocket                         // app.socket
	RoleControl                        // app-control.socket
	RoleDiag                           // app-diag.socket
	RoleInstance                       // app@i.service
	RoleInstanceSocket                 // app@i.socket
	RoleJoin                           // app-join@i.service, and app-join.service of all instances
	RoleChannel                        // app-channel.socket
)

// Unit is a unit of an app. Instance is 0 for the units that have none and for the templates
// themselves.
type Unit struct {
	Role     Role
	Instance int
}

// ParseUnit says which unit of n the unit name is; false if it is none, or has an instance that
// ParseInstance refuses.
func (n Name) ParseUnit(unit string) (Unit, bool) {
	switch unit {
	case n.Service():
		return Unit{Role: RoleShim}, true
	case n.Socket():
		return Unit{Role: RoleSocket}, true
	case n.ControlSocket():
		return Unit{Role: RoleControl}, true
	case n.ChannelSocket():
		return Unit{Role: RoleChannel}, true
	case n.DiagSocket():
		return Unit{Role: RoleDiag}, true
	case n.JoinAll():
		return Unit{Role: RoleJoin}, true
	}
	prefix, rest, ok := strings.Cut(unit, "@")
	dot := strings.IndexByte(rest, '.')
	if !ok || dot < 0 {
		return Unit{}, false
	}
	u := Unit{}
	switch prefix + "@" + rest[dot:] {
	case n.InstanceTemplate():
		u.Role = RoleInstance
	case n.InstanceSocketTemplate():
		u.Role = RoleInstanceSocket
	case n.JoinTemplate():
		u.Role = RoleJoin
	default:
		return Unit{}, false
	}
	if dot > 0 {
		if u.Instance, ok = ParseInstance(rest[:dot]); !ok {
			return Unit{}, false
		}
	}
	return u, true
}

// ParseInstance reads an instance number: decimal, 1 to MaxInstances, no sign and no leading zero,
// as "app@01" is another unit than "app@1".
func ParseInstance(s string) (int, bool) {
	i, err := strconv.Atoi(s)
	if err != nil || i < 1 || i > MaxInstances || strconv.Itoa(i) != s {
		return 0, false
	}
	return i, true
}

// CheckInstances returns an InputError unless an app can have n instances.
func CheckInstances(n int) error {
	if n < 1 || n > MaxInstances {
		return inputErrorf("", "--instances= must be between 1 and %d, got %d", MaxInstances, n)
	}
	return nil
}
