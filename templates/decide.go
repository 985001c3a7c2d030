package templates

import (
	"cmp"
	"fmt"
	"path"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/unitgen/unitgen/internal/app"
	"github.com/unitgen/unitgen/internal/program"
)

// stopMargin is what the balancer may take beyond the stop of its instances.
const stopMargin = 15 * time.Second

// startMargin is what PID 1 gives beyond the start time-out, so that the command which waits for
// the instance, or the shim which waits for the first one, can say what is wrong.
const startMargin = 5 * time.Second

// metricsProgram answers scrapes; it is beside lbshim.
const metricsProgram = "metrics"

// values is what templates print: text that is quoted and decided.
type values struct {
	Name         app.Name
	UserUnits    bool
	Manager      string // "--user " for a user's units, after "systemctl "
	Lbshim       string // quoted as the first word of a command line
	UserOption   string // " --user-units" or nothing
	Root         string // prefix of commands that talk to PID 1 or the control socket as root
	Privileged   string // the same for commands whose failure must not count
	ControlPath  string
	ChannelPath  string // of Node.js programs and others that take messages; else empty
	NodeChannel  bool   // ChannelPath is of a Node.js program
	BindAnswered bool   // the program's bind() is answered with the instance's listeners
	Joined       string // the directory of notes that instances have joined
	JoinedFile   string // the note, in the instance's directory there
	HandoffPath  string // empty but on the handoff path
	Settings     string // the section [X-Unitgen]

	// Sockets.
	Listen       []string
	FreeBind     bool
	HandoffTCP   bool   // on the handoff path, and not only unix sockets
	BindIPv6Only string // empty: as the kernel has it
	PollLimit    bool   // PollLimitIntervalSec= is known (255)

	// Joining.
	Instances      []int    // whose listeners the balancer gets when the app starts
	InstanceGroups []string // patterns of control groups in which an instance runs
	JoinedDir      string   // Joined, as RuntimeDirectory= takes it

	// Who answers beside the app.
	Agent, Metrics beside
	MetricsProgram string // quoted as the first word of a command line

	// The shim.
	ServeOptions     string // each with a blank before it
	Capabilities     string
	ClassicAddresses string // what it connects to without eBPF; empty: it has eBPF, or is a user's
	WantedBy         string

	// The instances.
	ExecStart        string
	Identifier       string // of what the program prints, where PID 1 starts another one before it
	Environment      []string
	EnvironmentFiles []string
	WorkingDirectory string
	User             string
	DynamicUser      bool
	Runtime          string // name of a runtime that compiles while it runs; empty for other programs
	TmpPaths         []string
	ProtectHome      bool
	PrivateNetwork   bool
	ProbeAddresses   string // what the command that waits for an instance must be allowed to connect to
	AddressFamilies  string
	Properties       []app.Property
	Restart          restart

	Type           string // Type= of the instances
	ReadyCheck     string // --check= of the command that waits for an instance; empty where PID 1 knows by itself
	ReadyOptions   string // further ones of that command, each with a blank before it
	RolloutOptions string // each with a blank before it

	DrainOptions string // each with a blank before it
	KillSignal   string // empty: systemd's default

	TimeoutStart, TimeoutStop string
	BalancerStop              string // TimeoutStopSec= of the balancer, which stops when its instances have
	ReadyTimeout              string // option of the command that waits; TimeoutStart is longer, so that the reason is told first
}

// decide makes every decision that the templates print. Unknown settings would only be warned about
// by an older systemd, but a unit that gives warnings does not look right, so they are left out.
func decide(a app.App, p Paths) (values, error) {
	if err := a.Validate(); err != nil {
		return values{}, err
	}
	lbshim, err := app.ExecLine([]string{p.Lbshim})
	if err != nil {
		return values{}, fmt.Errorf("write path of lbshim: %w", err)
	}
	metrics, err := app.ExecLine([]string{path.Join(path.Dir(p.Lbshim), metricsProgram)})
	if err != nil {
		return values{}, fmt.Errorf("write path of metrics: %w", err)
	}
	execStart, err := app.ExecLine(a.Command)
	if err != nil {
		return values{}, err
	}
	v := values{
		Name:           a.Name,
		Lbshim:         lbshim,
		MetricsProgram: metrics,
		Root:           "+",
		Privileged:     "-+",
		ControlPath:    a.Name.ControlPath("/run"),
		Settings:       app.Settings(a),
		Instances:      p.Instances,
		BindIPv6Only:   bindIPv6Only(a.Listen),
		PollLimit:      a.SystemdVersion >= 255,
		ServeOptions:   serveOptions(a),
		Capabilities:   "CAP_BPF",
		WantedBy:       "multi-user.target",
		ExecStart:      execStart,
		User:           a.InstanceUser(),
		DynamicUser:    a.User == "",
		Runtime:        program.Compiles(a.Command, p.Script),
		Properties:     properties(a.Properties),
		Restart:        decideRestart(a),
		RolloutOptions: rolloutOptions(a),
		KillSignal:     a.KillSignal(),
		ReadyTimeout:   app.QuoteWord("--start-timeout=" + app.FormatTimeSpan(a.StartTimeoutOrDefault())),
		TimeoutStart:   app.FormatTimeSpan(a.StartTimeoutOrDefault() + startMargin),
		TimeoutStop:    app.FormatTimeSpan(a.StopTimeout()),
		BalancerStop:   app.FormatTimeSpan(a.LongestStop() + stopMargin),
	}
	if shutdown := a.ShutdownOrDefault(); shutdown != "" {
		v.DrainOptions = " --shutdown=" + string(shutdown)
	}
	if a.StrategyOrDefault().CountsConnections() && a.DataPath() == app.PathSteer {
		v.Capabilities += " CAP_NET_ADMIN"
	}
	for _, l := range a.Listen {
		v.Listen = append(v.Listen, l.ListenStream())
		v.FreeBind = v.FreeBind || l.Specific()
	}
	v.Agent, v.Metrics = decideBeside(a.Agent), decideBeside(a.Metrics)
	v.decideClassicBPF(a)
	v.decideReady(a)
	v.decideUserUnits(a)
	v.decideChannel(a)
	v.decideHandoff(a)
	v.decideProcess(a)
	v.decideBind(a)
	v.decideJoin()
	return v, nil
}

// maxNames is below the limit of the kernel for LISTEN_FDNAMES=, in bytes.
const maxNames = 120 << 10

// decideJoin decides where it is noted that instances have joined, and where PID 1 looks for those
// that run: in the app's own slice, or in one that the administrator has chosen, at most three deep.
func (v *values) decideJoin() {
	v.Joined, v.JoinedFile = path.Join(path.Dir(v.ControlPath), app.JoinedName), app.JoinedFile
	v.JoinedDir = path.Join("unitgen", string(v.Name), app.JoinedName)
	// PID 1 passes a name for each descriptor, in one variable, which must not be longer than 128 KiB
	// (MAX_ARG_STRLEN). Instances beyond that join on their own.
	name := len(v.Name.InstanceSocket(app.MaxInstances)) + 1
	v.Instances = v.Instances[:min(len(v.Instances), maxNames/(name*max(len(v.Listen), 1)))]
	groups := "/sys/fs/cgroup"
	if v.UserUnits {
		groups += "/user.slice/user-%U.slice/user@%U.service"
	}
	names := []string{string(v.Name)}
	if strings.HasPrefix(names[0], "_") || strings.Contains(names[0], ".") {
		names = append(names, "_"+names[0]) // where the kernel has a file like that (cg_escape in src/basic/cgroup-util.c)
	}
	for _, name := range names {
		for _, slice := range []string{"*", "*/*", "*/*/*"} {
			v.InstanceGroups = append(v.InstanceGroups, path.Join(groups, slice, name+"@*.service"))
		}
	}
}

// beside is an address beside the app's own; the zero value is none.
type beside struct {
	Stream       string // ListenStream=
	FreeBind     bool
	Path         bool // it is a path
	BindIPv6Only string
}

func decideBeside(l app.Listen) beside {
	if l == (app.Listen{}) {
		return beside{}
	}
	return beside{Stream: l.ListenStream(), FreeBind: l.Specific(), Path: l.IsUnix(), BindIPv6Only: bindIPv6Only([]app.Listen{l})}
}

// bindIPv6Only decides what an IPv6 wildcard takes. A bare port is IPv4 and IPv6, also where
// net.ipv6.bindv6only=1 says otherwise for sockets that do not say it themselves.
func bindIPv6Only(listen []app.Listen) string {
	switch {
	case app.SeparateFamilies(listen):
		return "ipv6-only"
	case slices.ContainsFunc(listen, func(l app.Listen) bool { return !l.IsUnix() && !l.Addr.IsValid() }):
		return "both"
	}
	return ""
}

// properties are the user's, and what keeps a directory that the instances share from being removed
// with one of them.
func properties(all []app.Property) []app.Property {
	if !app.SharesRuntimeDirectory(all) {
		return all
	}
	return append(slices.Clone(all), app.PreserveRuntimeDirectory)
}

// decideReady decides who finds out that an instance can serve: PID 1 by itself, or a command that
// tries.
func (v *values) decideReady(a app.App) {
	v.Type = "exec"
	switch ready := a.ReadyOrDefault(); ready {
	case app.ReadyNotify:
		v.Type = "notify"
	case app.ReadyExec:
	default:
		v.ReadyCheck = app.QuoteWord("--check=" + ready)
		if a.BindAnswered() {
			v.ReadyOptions = " --kind=" + string(app.KindBind)
		}
	}
}

// rolloutOptions are the settings of a rollout that differ from its defaults; its limits are those
// of the instances.
func rolloutOptions(a app.App) string {
	var b strings.Builder
	option := func(name, value string) {
		if value != "" {
			b.WriteString(" " + app.QuoteWord("--"+name+"="+value))
		}
	}
	timeSpan := func(name string, d time.Duration) {
		if d != 0 {
			option(name, app.FormatTimeSpan(d))
		}
	}
	option("surge", a.Surge)
	if a.Parallel > 0 {
		option("parallel", strconv.Itoa(a.Parallel))
	}
	timeSpan("soak", a.Soak)
	timeSpan("drain-timeout", a.DrainTimeout)
	timeSpan("start-timeout", a.StartTimeout)
	return b.String()
}

// decideChannel gives instances a channel to the shim: other programs than those for Node.js where
// it is, for messages; those by a launcher, which becomes the program. Where one for Node.js on the
// handoff path asks its environment for a port, it gets the app's first.
func (v *values) decideChannel(a app.App) {
	if a.Kind != app.KindNode && !a.Messages {
		return
	}
	v.ChannelPath = path.Join(path.Dir(v.ControlPath), app.ChannelName)
	if a.Messages {
		return
	}
	v.NodeChannel = true
	v.Runtime = cmp.Or(v.Runtime, "node")
	if a.BindAnswered() {
		return // its launcher does both
	}
	v.ExecStart = v.Lbshim + " exec " + string(a.Name) + " %i --kind=node --path=handoff" + v.UserOption + " -- " + app.ExecWords(a.Command)
	v.Identifier = app.RawWord(path.Base(a.Command[0]))
	port := strconv.Itoa(int(a.Listen[0].Port))
	if a.Listen[0].IsUnix() {
		port = a.Listen[0].Unix // listen(process.env.PORT) takes a path too
	}
	v.Environment = append(v.Environment, app.QuoteAssignment(app.Assignment{Key: "PORT", Value: port}))
}

// decideHandoff gives each instance a private socket in place of a listener of its own.
func (v *values) decideHandoff(a app.App) {
	if a.DataPath() != app.PathHandoff {
		return
	}
	v.HandoffPath = path.Join(path.Dir(v.ControlPath), app.HandoffName+"%i")
	v.HandoffTCP = slices.ContainsFunc(a.Listen, func(l app.Listen) bool { return !l.IsUnix() })
	v.Capabilities = ""
}

// decideClassicBPF takes the balancer's capabilities. Without eBPF the balancer finds the order of
// the listeners by connection requests, so it needs the network that they are in.
func (v *values) decideClassicBPF(a app.App) {
	if !a.ClassicBPF || a.UserUnits {
		return
	}
	v.Capabilities, v.ClassicAddresses = "", probeAddresses(a.Listen)
}

func (v *values) decideUserUnits(a app.App) {
	if !a.UserUnits {
		return
	}
	v.UserUnits = true
	v.Manager = "--user "
	v.UserOption = " --user-units"
	v.Root, v.Privileged = "", "-" // the user's manager has no privileges to give
	v.ControlPath = a.Name.ControlPath("%t")
	v.WantedBy = "default.target"
}

// decideProcess decides what an instance's process starts with and what it may see.
func (v *values) decideProcess(a app.App) {
	for _, e := range a.Environment {
		v.Environment = append(v.Environment, app.QuoteAssignment(e))
	}
	for _, file := range a.EnvironmentFiles {
		file, optional := strings.CutPrefix(file, "-")
		if file = app.RawPattern(file); optional {
			file = "-" + file
		}
		v.EnvironmentFiles = append(v.EnvironmentFiles, file)
	}
	if a.WorkingDirectory != "" {
		v.WorkingDirectory = app.RawPath(a.WorkingDirectory)
	}
	v.TmpPaths, v.ProtectHome = a.TmpPaths(), a.ProtectHome()
	v.AddressFamilies = "AF_UNIX AF_INET AF_INET6 AF_NETLINK"
	if network, ok := a.Property("PrivateNetwork"); ok && app.Truth(network) {
		v.PrivateNetwork = true
		if !a.BindAnswered() { // who binds needs sockets of these families, though nothing is bound in this network
			v.AddressFamilies = "AF_UNIX"
		}
	}
	_, fenced := a.Property("IPAddressDeny")
	if v.ReadyCheck != "" && (v.PrivateNetwork || fenced) {
		v.ProbeAddresses = probeAddresses(a.Listen)
	}
}

// probeAddresses are where the listeners are reached from this host.
func probeAddresses(listen []app.Listen) string {
	addresses := "localhost"
	for _, l := range listen {
		if l.Specific() && !l.Addr.IsLoopback() {
			addresses += " " + l.Addr.WithZone("").String()
		}
	}
	return addresses
}

// serveOptions are the settings of the shim that differ from its defaults.
func serveOptions(a app.App) string {
	var b strings.Builder
	option := func(name, value string) { b.WriteString(" " + app.QuoteWord("--"+name+"="+value)) }
	if a.DataPath() == app.PathHandoff {
		option("path", string(app.PathHandoff))
		option("strategy", string(a.StrategyOrDefault()))
		if a.MaxConnections > 0 {
			option("max-connections", strconv.Itoa(a.MaxConnections))
		}
		if a.ProgramPort > 0 {
			option("program-port", strconv.Itoa(a.ProgramPort))
		}
	} else if a.Strategy != "" {
		option("strategy", string(a.Strategy))
	}
	if a.DrainTimeout != 0 {
		option("drain-timeout", app.FormatTimeSpan(a.DrainTimeout))
	}
	if a.StartTimeout != 0 {
		option("start-timeout", app.FormatTimeSpan(a.StartTimeout))
	}
	if a.IdleExit != 0 {
		option("idle-exit", app.FormatTimeSpan(a.IdleExit))
	}
	if a.SlowStart != 0 {
		option("slow-start", app.FormatTimeSpan(a.SlowStart))
	}
	if len(a.Weights) > 0 {
		option("weights", a.WeightList())
	}
	if a.Messages {
		b.WriteString(" --messages")
	}
	if a.ShutdownMessage {
		b.WriteString(" --shutdown-message")
	}
	if a.UserUnits {
		b.WriteString(" --user-units")
	}
	return b.String()
}
