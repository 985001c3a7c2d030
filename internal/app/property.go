package app

import (
	"fmt"
	"strings"
)

// ParseAssignment reads the value of --env=, KEY=VALUE.
func ParseAssignment(s string) (Assignment, error) {
	key, value, ok := strings.Cut(s, "=")
	if !ok {
		return Assignment{}, inputErrorf("", "--env= must be KEY=VALUE, got %q", s)
	}
	a := Assignment{Key: key, Value: value}
	return a, a.Check()
}

// Check returns an InputError for what PID 1 would drop without failing the start
// (env_assignment_is_valid() in src/basic/env-util.c; tried on 252 and 257), and for what it sets
// itself.
func (a Assignment) Check() error {
	switch {
	case !IsVariable(a.Key):
		return inputErrorf("", "--env= must have a name of letters, digits and \"_\" that does not begin with a digit, got %q", a.Key)
	case strings.IndexByte(a.Value, 0) >= 0:
		return inputErrorf("", "--env=%s= must not contain NUL", a.Key)
	case !isText(a.Value):
		return inputErrorf("--env-file=", "--env=%s= must be valid UTF-8, as systemd drops other values", a.Key)
	case len(a.Key)+1+len(a.Value) > maxArgument:
		return inputErrorf("", "--env=%s= must have at most %d bytes with its name, got %d", a.Key, maxArgument, len(a.Key)+1+len(a.Value))
	}
	if SetBySystemd(a.Key) {
		return inputErrorf("", "--env=%s= is set by systemd for each instance", a.Key)
	}
	return nil
}

// SetBySystemd says that PID 1 sets this variable for each instance.
func SetBySystemd(key string) bool {
	switch key {
	case "LISTEN_FDS", "LISTEN_PID", "LISTEN_FDNAMES", "NOTIFY_SOCKET":
		return true
	}
	return false
}

// IsVariable says that s is the name of an environment variable (env_name_is_valid() in systemd).
func IsVariable(s string) bool {
	for i, r := range s {
		letter := r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r == '_'
		if !letter && (i == 0 || r < '0' || r > '9') {
			return false
		}
	}
	return s != ""
}

// ParseProperty reads the value of --property=, KEY=VALUE; blanks around the value go, as systemd
// ignores them.
func ParseProperty(s string) (Property, error) {
	key, value, ok := strings.Cut(s, "=")
	if !ok {
		return Property{}, inputErrorf("", "--property= must be KEY=VALUE, got %q", s)
	}
	p := Property{Key: key, Value: strings.Trim(value, " \t")}
	return p, p.checkText()
}

func (p Property) checkText() error {
	if !settingName(p.Key) {
		return inputErrorf("", "--property= must begin with the name of a [Service] setting such as MemoryMax, got %q", p.Key)
	}
	if problem := rawLineProblem(p.Value); problem != "" {
		return inputErrorf("", "--property=%s= %s", p.Key, problem)
	}
	if (len(p.Value)-len(strings.TrimRight(p.Value, `\`)))%2 == 1 {
		return inputErrorf("", "--property=%s= must not end in a backslash, which would continue the line", p.Key)
	}
	if len(p.Key)+1+len(p.Value) >= MaxLine {
		return inputErrorf("", "--property=%s= must have at most %d bytes, got %d", p.Key, MaxLine, len(p.Value))
	}
	return nil
}

// settingName holds for every name of systemd.directives(7) and refuses the usual slips: lower
// case, blanks, dots.
func settingName(s string) bool {
	for i, r := range s {
		upper := r >= 'A' && r <= 'Z'
		if !upper && (i == 0 || (r < 'a' || r > 'z') && (r < '0' || r > '9')) {
			return false
		}
	}
	return s != ""
}

// check refuses the properties that would break what the units promise, each with its reason.
func (p Property) check(a App) error {
	if err := p.checkText(); err != nil {
		return err
	}
	if unitSetting(p.Key) {
		return inputErrorf("systemctl edit "+a.Name.InstanceTemplate(), "--property=%s= is not a setting of section [Service]", p.Key)
	}
	if since := settingSince(p.Key); since > a.systemdVersion() {
		return inputErrorf(fmt.Sprintf("--systemd-version=%d", since), "--property=%s= needs systemd %d, the units are for %d, which would ignore it", p.Key, since, a.systemdVersion())
	}
	switch p.Key {
	case "ExecStart":
		return inputErrorf("unitgen "+string(a.Name)+" -- COMMAND", "--property=ExecStart= would replace the command")
	case "Sockets":
		return inputErrorf("", "--property=Sockets= would pass other sockets beside the instance's own listener")
	case "RemainAfterExit":
		if truth, ok := boolean(p.Value); !ok || truth {
			return inputErrorf("", "--property=RemainAfterExit= would keep an instance up after its program has ended")
		}
	case "ExecStop":
		if p.Value == "" {
			return inputErrorf("", "--property=ExecStop= without a value would take away the command that drains an instance")
		}
	case "RuntimeDirectory":
		if claimsUnitgen(p.Value) {
			return inputErrorf("", "--property=RuntimeDirectory= must not name unitgen/, the balancers' directory, which would belong to the program")
		}
	case "PIDFile":
		// PID 1 deletes that file when an instance ends, whatever Type= is (service_enter_dead() in
		// src/core/service.c).
		return inputErrorf("", "--property=PIDFile= is for programs that go to the background, and an instance must stay in the foreground")
	case "Type":
		return p.checkType(a)
	case "User":
		return inputErrorf(ShellWord("--user="+p.Value), "--property=User= is not possible, use --user=")
	case "WorkingDirectory":
		return inputErrorf(ShellWord("--working-directory="+p.Value), "--property=WorkingDirectory= is not possible, use --working-directory=")
	}
	return nil
}

func (p Property) checkType(a App) error {
	switch p.Value {
	case "simple", "exec", "notify", "idle":
		return nil
	case "notify-reload":
		if a.systemdVersion() < 253 {
			return inputErrorf("--property=Type=notify", "--property=Type=notify-reload needs systemd 253, the units are for %d, which would take it for Type=simple", a.systemdVersion())
		}
		return nil
	case "forking", "oneshot", "dbus":
		return inputErrorf("--property=Type=exec", "--property=Type=%s does not fit an instance, whose program must stay in the foreground and take its socket", p.Value)
	}
	return inputErrorf("--property=Type=exec", "--property=Type= must be simple, exec, notify, notify-reload or idle, got %q", p.Value)
}

// settingSince returns the version of systemd that introduced a [Service] setting; 0 for those of
// MinSystemdVersion and unknown ones. From the "Added in version" of systemd.service(5),
// systemd.exec(5) and systemd.resource-control(5).
func settingSince(key string) int {
	switch key {
	case "LogFilterPatterns", "OpenFile", "ReloadSignal":
		return 253
	case "DelegateSubgroup", "ExtensionImagePolicy", "FileDescriptorStorePreserve", "ImportCredential", "MemoryKSM",
		"MemoryPressureThresholdSec", "MemoryPressureWatch", "MountImagePolicy", "RestartMaxDelaySec", "RestartMode", "RestartSteps",
		"RootEphemeral", "RootImagePolicy":
		return 254
	case "CoredumpReceive", "NFTSet", "SetLoginEnvironment":
		return 255
	case "MemoryZSwapWriteback":
		return 256
	case "BindLogSockets", "ManagedOOMMemoryPressureDurationSec", "PrivatePIDs":
		return 257
	case "DelegateNamespaces", "PrivateBPF":
		return 258
	}
	return 0
}

// unitSetting reports whether key is a likely setting of [Unit] or [Install]; systemd would ignore
// it with a warning in the journal.
func unitSetting(key string) bool {
	for _, prefix := range []string{"Condition", "Assert", "StartLimit", "JobTimeout", "JobRunningTimeout", "OnFailure", "OnSuccess", "Propagates", "RefuseManual", "RequiresMounts", "Wants", "Joins"} {
		if strings.HasPrefix(key, prefix) {
			return true
		}
	}
	switch key {
	case "After", "Before", "Requires", "Requisite", "BindsTo", "PartOf", "Upholds", "Conflicts", "Description",
		"Documentation", "DefaultDependencies", "IgnoreOnIsolate", "StopWhenUnneeded", "AllowIsolate", "CollectMode",
		"FailureAction", "SuccessAction", "SourcePath", "ReloadPropagatedFrom", "StopPropagatedFrom", "RebootArgument",
		"WantedBy", "RequiredBy", "UpheldBy", "Also", "Alias", "DefaultInstance":
		return true
	}
	return false
}

// boolean is parse_boolean() of src/basic/parse-util.c.
func boolean(s string) (truth, ok bool) {
	switch strings.ToLower(s) {
	case "1", "yes", "y", "true", "t", "on":
		return true, true
	case "0", "no", "n", "false", "f", "off":
		return false, true
	}
	return false, false
}

// Truth reports whether s is one of systemd's words for yes.
func Truth(s string) bool {
	truth, _ := boolean(s)
	return truth
}
