package app

import (
	"regexp"
	"strings"
	"time"

	"github.com/unitgen/unitgen/internal/balance"
)

// App has all settings of an app except its instances, which are the links in app.service.wants/.
// It is the content of section [X-Unitgen] of app.service (see ParseSettings and Settings).
type App struct {
	Name             Name
	Command          []string // argv; Command[0] is an absolute path
	Listen           []Listen
	ProgramPort      int              // what the program says for the app's one port; zero: it says that port
	Kind             Kind             // zero means the default of the path: see BindAnswered
	Path             Path             // zero means PathAuto
	Strategy         balance.Strategy // zero means the path's default
	ClassicBPF       bool             // the balancer has no capability and steers by classic BPF, which spreads at random
	Environment      []Assignment
	EnvironmentFiles []string // absolute and literal, an optional leading "-" as in EnvironmentFile=
	WorkingDirectory string   // absolute; empty means /
	User             string   // empty means DynamicUser=: see InstanceUser
	UserPerInstance  bool     // each instance has a dynamic user of its own, not one of the app's
	Properties       []Property
	DrainTimeout     time.Duration // zero means DefaultDrainTimeout
	Shutdown         Shutdown      // empty: see ShutdownOrDefault
	StartTimeout     time.Duration // zero means DefaultStartTimeout
	IdleExit         time.Duration // zero means never
	SlowStart        time.Duration // zero means that an instance that came back has its whole share at once
	Agent            Listen        // where load balancers learn how the app is; zero: nowhere
	Metrics          Listen        // where Prometheus asks for the metrics of the app; zero: nowhere
	Ready            string        // what makes an instance ready: see ReadyOrDefault
	Messages         bool          // programs other than Node.js have a channel for messages (package activation)
	ShutdownMessage  bool          // Node.js programs are told "shutdown" before SIGTERM
	Surge            string        // extra instances of a rollout, a number or "all"; empty means 1
	Parallel         int           // instances that a rollout restarts at a time; zero means 1
	Soak             time.Duration // how long extra instances must stay up; zero means lbshim's default
	Restart          Restart
	MaxConnections   int   // open connections that an instance has at most; zero means any number
	Weights          []int // shares of new connections by instance number; those after the list have 1
	Pin              bool  // each instance to one CPU, by a drop-in of its own
	UserUnits        bool  // units of a user's own manager: no DynamicUser=, no capabilities, %t instead of /run
	SystemdVersion   int   // the version the units are written for; zero means MinSystemdVersion
}

// Restart has the settings for restarts of instances other than by a rollout; systemd does each of
// them.
type Restart struct {
	Delay         time.Duration // before the first automatic restart; zero means DefaultRestartDelay
	Max           int           // automatic restarts of an instance within Within; zero means any number
	Within        time.Duration // zero means DefaultWithin
	StopExitCodes []int         // exit statuses after which an instance stays stopped
	Watchdog      time.Duration // an instance that is silent for so long is killed; zero means never
	MaxMemory     Size          // above it the kernel kills; zero means no limit
	MemoryReload  Size          // resident memory above which an instance is drained and restarted; zero means never
	ReloadAt      string        // when to roll, OnCalendar= of systemd.timer(5); empty means never
	Watch         []string      // absolute paths whose change starts a rollout
}

// Setting is a row of the table of settings. A row says everything about a setting except its line
// in the unit templates and its documentation. The App has the value. Package app reads, writes and
// checks it by its row, and cmd/unitgen takes the option and its completion from the row.
type Setting struct {
	Key    string   // of section [X-Unitgen] and of .unitgen files (unitgen(5))
	Option string   // of unitgen that says the same, without "--"; empty for Version and Command, which have none
	Letter string   // of that option; empty for none
	Values []string // some that the option takes, for completion
	IsPath bool     // a relative value counts from where it is written
	value

	aliases  string                  // what users of other programs call it, in lower case without "-" and "_"
	property string                  // the [Service] setting that says the same; only one of the two may be given
	fits     func(App) bool          // whether the app's other settings, such as kind and path, allow it; nil: any do
	unfit    string                  // why they do not, to be read after the option
	hint     string                  // what to paste then
	check    func(App, *inputErrors) // further checks; nil for none
	then     func(*App)              // what the option changes beside; nil for nothing
}

// table has the settings in their order in section [X-Unitgen].
var table = [...]Setting{
	{Key: "Version", value: formatVersion()},
	{Key: "Command", aliases: "execstart exec script", value: value{form: formArgv,
		words: func(a *App) []string { return a.Command }}},
	{Key: "Instances", Option: "instances", Letter: "n", Values: []string{"max"}}, // of files alone: those of an app that exists are links
	{Key: "Listen", Option: "listen", aliases: "port listenstream",
		value: list(func(a *App) *[]Listen { return &a.Listen }, ParseListen, Listen.String)},
	{Key: "ProgramPort", Option: "program-port",
		value: number(func(a *App) *int { return &a.ProgramPort }, "a port", 65535, "3000"),
		fits:  func(a App) bool { return a.Kind == KindNode || a.BindAnswered() },
		unfit: "is for programs that open their port themselves; this one gets its socket or connections, whatever their port",
		hint:  "--kind=bind", check: App.checkProgramPort},
	{Key: "Kind", Option: "kind", check: App.checkKind,
		value: choice(func(a *App) *Kind { return &a.Kind }, []Kind{KindBind, KindListen, KindNode, KindHandoff},
			"; use --kind=bind for a program that opens its own port", KindPort, KindUnix)},
	{Key: "Path", Option: "path", check: App.checkPath, hint: "--path=steer",
		value: choice(func(a *App) *Path { return &a.Path }, []Path{PathAuto, PathSteer, PathHandoff}, "", PathProxy)},
	{Key: "Strategy", Option: "strategy", check: App.checkStrategy,
		value: choice(func(a *App) *balance.Strategy { return &a.Strategy }, balance.Strategies(), "")},
	{Key: "ClassicBPF", Option: "classic-bpf", aliases: "ebpf", value: truth(func(a *App) *bool { return &a.ClassicBPF }),
		fits:  func(a App) bool { return a.DataPath() == PathSteer },
		unfit: "is for the steer path: no other needs eBPF", hint: "--path=steer"},
	{Key: "Environment", Option: "env", check: App.checkEnvironment,
		value: as(formWords, list(func(a *App) *[]Assignment { return &a.Environment }, ParseAssignment,
			func(e Assignment) string { return e.Key + "=" + e.Value }))},
	{Key: "EnvironmentFile", Option: "env-file", IsPath: true, check: App.checkEnvironmentFiles,
		value: list(func(a *App) *[]string { return &a.EnvironmentFiles }, notEmpty, literal)},
	{Key: "WorkingDirectory", Option: "working-directory", IsPath: true, aliases: "cwd", check: App.checkWorkingDirectory,
		value: text(func(a *App) *string { return &a.WorkingDirectory })},
	{Key: "User", Option: "user", value: text(func(a *App) *string { return &a.User }),
		fits: App.systemUnits, unfit: "is not possible with --user-units, whose processes all run as that user", check: App.checkUser},
	{Key: "UserPerInstance", Option: "user-per-instance", value: truth(func(a *App) *bool { return &a.UserPerInstance }),
		fits: App.systemUnits, unfit: "is not possible with --user-units, whose processes all run as that user", check: App.checkUserPerInstance},
	{Key: "Property", Option: "property", Letter: "p", check: App.checkProperties,
		value: list(func(a *App) *[]Property { return &a.Properties }, ParseProperty, func(p Property) string { return p.Key + "=" + p.Value })},
	{Key: "DrainTimeoutSec", Option: "drain-timeout", aliases: "timeoutstopsec",
		value: timeSpan(func(a *App) *time.Duration { return &a.DrainTimeout })},
	{Key: "Shutdown", Option: "shutdown",
		value: choice(func(a *App) *Shutdown { return &a.Shutdown }, []Shutdown{ShutdownGraceful, ShutdownQuick}, ""),
		fits:  func(a App) bool { return a.Kind != KindNode },
		unfit: "does not go with --kind=node, whose programs the balancer tells to finish"},
	{Key: "StartTimeoutSec", Option: "start-timeout", aliases: "timeoutstartsec",
		value: timeSpan(func(a *App) *time.Duration { return &a.StartTimeout })},
	{Key: "IdleExitSec", Option: "idle-exit", value: timeSpan(func(a *App) *time.Duration { return &a.IdleExit })},
	{Key: "SlowStartSec", Option: "slow-start", value: timeSpan(func(a *App) *time.Duration { return &a.SlowStart })},
	{Key: "Agent", Option: "agent", aliases: "health healthcheck", value: address("--agent=", func(a *App) *Listen { return &a.Agent }),
		fits:  func(a App) bool { return a.IdleExit == 0 },
		unfit: "does not go with --idle-exit=: whoever asks the agent keeps the balancer awake",
		check: func(a App, found *inputErrors) { a.checkBeside("--agent=", a.Agent, found) }},
	{Key: "Metrics", Option: "metrics", aliases: "prometheus openmetrics", value: address("--metrics=", func(a *App) *Listen { return &a.Metrics }),
		check: func(a App, found *inputErrors) { a.checkBeside("--metrics=", a.Metrics, found) }},
	{Key: "Ready", Option: "ready", Values: []string{ReadyListen, ReadyNotify, ReadyExec, ReadyMessage, ReadyHTTP + "/"},
		value: text(func(a *App) *string { return &a.Ready }), check: App.checkReady},
	{Key: "Messages", Option: "messages", value: truth(func(a *App) *bool { return &a.Messages }),
		fits:  func(a App) bool { return a.Kind != KindNode },
		unfit: "is for programs that use package activation; those for Node.js have messages without it"},
	{Key: "ShutdownMessage", Option: "shutdown-message", value: truth(func(a *App) *bool { return &a.ShutdownMessage }),
		fits:  func(a App) bool { return a.Kind == KindNode },
		unfit: "is for programs for Node.js; others end on a signal: -p KillSignal=SIGINT"},
	{Key: "Surge", Option: "surge", Values: []string{"all"}, value: text(func(a *App) *string { return &a.Surge }), check: App.checkSurge},
	{Key: "MaxConnections", Option: "max-connections",
		value: number(func(a *App) *int { return &a.MaxConnections }, "a number of connections", maxMaxConnections, ""),
		fits:  func(a App) bool { return a.DataPath() != PathSteer },
		unfit: "is not possible on the steer path", hint: "--path=handoff"},
	{Key: "Parallel", Option: "parallel",
		value: number(func(a *App) *int { return &a.Parallel }, "a number of instances", MaxInstances, "1")},
	{Key: "SoakSec", Option: "soak", value: timeSpan(func(a *App) *time.Duration { return &a.Soak })},
	{Key: "RestartDelaySec", Option: "restart-delay", aliases: "restartsec", property: "RestartSec",
		value: timeSpan(func(a *App) *time.Duration { return &a.Restart.Delay })},
	{Key: "MaxRestarts", Option: "max-restarts", then: noWithin,
		value: number(func(a *App) *int { return &a.Restart.Max }, "a number of restarts", maxRestarts, "")},
	{Key: "WithinSec", Option: "within", value: timeSpan(func(a *App) *time.Duration { return &a.Restart.Within }),
		fits:  func(a App) bool { return a.Restart.Max != 0 },
		unfit: "needs --max-restarts=, the number of restarts in that time", hint: "--max-restarts=5"},
	{Key: "StopExitCodes", Option: "stop-exit-codes", property: "RestartPreventExitStatus",
		value: numbers(func(a *App) *[]int { return &a.Restart.StopExitCodes }, ParseExitCodes)},
	{Key: "WatchdogSec", Option: "watchdog", property: "WatchdogSec",
		value: timeSpan(func(a *App) *time.Duration { return &a.Restart.Watchdog }),
		fits:  func(a App) bool { return a.ReadyOrDefault() == ReadyNotify },
		unfit: "needs --ready=notify: the program must tell systemd that it is alive (WATCHDOG=1, sd_notify(3))",
		hint:  "--ready=notify"},
	{Key: "MaxMemory", Option: "max-memory", aliases: "memorymax", property: "MemoryMax",
		value: size(func(a *App) *Size { return &a.Restart.MaxMemory })},
	{Key: "MemoryReload", Option: "memory-reload", value: size(func(a *App) *Size { return &a.Restart.MemoryReload }), check: App.checkMemoryReload},
	{Key: "ReloadAt", Option: "reload-at", Values: []string{"hourly", "daily", "weekly", "monthly"}, aliases: "oncalendar",
		value: as(formText, text(func(a *App) *string { return &a.Restart.ReloadAt })), check: App.checkReloadAt},
	{Key: "Watch", Option: "watch", IsPath: true, check: App.checkWatch,
		value: list(func(a *App) *[]string { return &a.Restart.Watch }, notEmpty, literal)},
	{Key: "Weights", Option: "weights", value: numbers(func(a *App) *[]int { return &a.Weights }, ParseWeights),
		fits:  func(a App) bool { return a.Strategy != balance.First },
		unfit: "does not go with --strategy=first, which gives one instance all connections", hint: "--strategy=round-robin"},
	{Key: "Pin", Option: "pin", property: "CPUAffinity", value: truth(func(a *App) *bool { return &a.Pin })},
	{Key: "UserUnits", Option: "user-units", value: truth(func(a *App) *bool { return &a.UserUnits })},
	{Key: "SystemdVersion", Option: "systemd-version", value: systemdVersion(func(a *App) *int { return &a.SystemdVersion })},
}

// Table returns the settings, in the order of section [X-Unitgen].
func Table() []Setting { return table[:] }

// SettingOf returns the setting that an option of unitgen is; nil if it is none.
func SettingOf(option string) *Setting {
	for i := range table {
		if table[i].Option == option && option != "" {
			return &table[i]
		}
	}
	return nil
}

// settingOfKey returns the setting that has a key; nil if there is none.
func settingOfKey(key string) *Setting {
	for i := range table {
		if table[i].Key == key {
			return &table[i]
		}
	}
	return nil
}

// name is the option as messages have it.
func (s *Setting) name() string {
	if s.Flag {
		return "--" + s.Option
	}
	return "--" + s.Option + "="
}

// Set sets the setting to the values of its option, at least one. An empty value resets the setting
// to its default.
func (s *Setting) Set(a *App, values []string) error {
	if s.take == nil { // Instances, of which an App knows nothing
		return nil
	}
	err := s.take(a, "--"+s.Option+"=", values)
	if s.then != nil {
		s.then(a)
	}
	return err
}

// Choices are values that the option takes; not all where it takes any.
func (s *Setting) Choices() []string {
	return append(s.Values[:len(s.Values):len(s.Values)], s.choices...)
}

// validate checks the setting if it is set.
func (s *Setting) validate(a App, found *inputErrors) {
	if s.Option == "" || s.words == nil || len(s.words(&a)) == 0 {
		return
	}
	if s.judge != nil {
		if err := s.judge(&a, s); err != nil {
			found.add(err)
			return
		}
	}
	if s.fits != nil && !s.fits(a) {
		found.addf(s.hint, "%s %s", s.name(), s.unfit)
		return
	}
	if _, twice := a.Property(s.property); twice && s.property != "" {
		found.addf("", "%s and --property=%s= set the same thing; remove one", s.name(), s.property)
	}
	if s.check != nil {
		s.check(a, found)
	}
}

// InKeys rewrites the options in a message or hint as keys of a .unitgen file: "--listen=" becomes
// "Listen=". Options without a key stay.
func InKeys(text string) string {
	return regexp.MustCompile(`--[a-z][a-z-]*=?`).ReplaceAllStringFunc(text, func(option string) string {
		if s := SettingOf(strings.Trim(option, "-=")); s != nil {
			return s.Key + "="
		}
		return option
	})
}
