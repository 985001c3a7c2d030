package app

import "regexp"

// Key is a key of section [X-Unitgen] and of .unitgen files (unitgen(5)).
type Key struct {
	Name   string
	Option string // of unitgen that says the same, without "--"; empty for Command and Version, which have none
	List   bool   // may stand several times
	form   form
}

// form is what stands behind the "=" of a key.
type form int

const (
	formWord  form = iota // one word
	formWords             // several values
	formText              // a text with blanks
	formTime              // a time span, which may have blanks
	formArgv              // a command line
)

// Keys lists all keys, in the order in which Settings writes them. Instances is one of .unitgen files only: the instances
// of an app that exists are links.
func Keys() []Key {
	return []Key{
		{Name: "Version"},
		{Name: "Command", form: formArgv},
		{Name: "Instances", Option: "instances"},
		{Name: "Listen", Option: "listen", List: true},
		{Name: "ProgramPort", Option: "program-port"},
		{Name: "Kind", Option: "kind"},
		{Name: "Path", Option: "path"},
		{Name: "Strategy", Option: "strategy"},
		{Name: "Environment", Option: "env", List: true, form: formWords},
		{Name: "EnvironmentFile", Option: "env-file", List: true},
		{Name: "WorkingDirectory", Option: "working-directory"},
		{Name: "User", Option: "user"},
		{Name: "UserPerInstance", Option: "user-per-instance"},
		{Name: "Property", Option: "property", List: true},
		{Name: "DrainTimeoutSec", Option: "drain-timeout", form: formTime},
		{Name: "Shutdown", Option: "shutdown"},
		{Name: "StartTimeoutSec", Option: "start-timeout", form: formTime},
		{Name: "IdleExitSec", Option: "idle-exit", form: formTime},
		{Name: "SlowStartSec", Option: "slow-start", form: formTime},
		{Name: "Ready", Option: "ready"},
		{Name: "Messages", Option: "messages"},
		{Name: "ShutdownMessage", Option: "shutdown-message"},
		{Name: "Surge", Option: "surge"},
		{Name: "MaxConnections", Option: "max-connections"},
		{Name: "Parallel", Option: "parallel"},
		{Name: "SoakSec", Option: "soak", form: formTime},
		{Name: "RestartDelaySec", Option: "restart-delay", form: formTime},
		{Name: "MaxRestarts", Option: "max-restarts"},
		{Name: "WithinSec", Option: "within", form: formTime},
		{Name: "StopExitCodes", Option: "stop-exit-codes"},
		{Name: "WatchdogSec", Option: "watchdog", form: formTime},
		{Name: "MaxMemory", Option: "max-memory"},
		{Name: "MemoryReload", Option: "memory-reload"},
		{Name: "ReloadAt", Option: "reload-at", form: formText},
		{Name: "Watch", Option: "watch", List: true},
		{Name: "Weights", Option: "weights"},
		{Name: "Pin", Option: "pin"},
		{Name: "UserUnits", Option: "user-units"},
		{Name: "SystemdVersion", Option: "systemd-version"},
	}
}

// findKey returns the key of that name; one that does not exist has an empty name.
func findKey(name string) Key {
	for _, k := range Keys() {
		if k.Name == name {
			return k
		}
	}
	return Key{}
}

// InKeys says in the words of a .unitgen file what a message or hint says in those of the command line: "--listen=" becomes
// "Listen=". Options that have no key stay.
func InKeys(text string) string {
	return regexp.MustCompile(`--[a-z][a-z-]*=?`).ReplaceAllStringFunc(text, func(option string) string {
		for _, k := range Keys() {
			if k.Option != "" && (option == "--"+k.Option || option == "--"+k.Option+"=") {
				return k.Name + "="
			}
		}
		return option
	})
}

// KeyOfOption returns the key that an option of unitgen has; false if it has none.
func KeyOfOption(option string) (Key, bool) {
	for _, k := range Keys() {
		if k.Option == option && option != "" {
			return k, true
		}
	}
	return Key{}, false
}
