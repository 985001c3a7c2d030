package imports

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/unitgen/unitgen/internal/app"
	"github.com/unitgen/unitgen/internal/fault"
)

// option is one setting of a unit.
type option struct {
	section, key, value string
	path                string // for messages
	line                int
}

// parseUnit reads a unit file or a drop-in, in the order of its lines.
func parseUnit(path, text string) ([]option, error) {
	var options []option
	section := ""
	for _, l := range app.UnitLines(strings.TrimPrefix(text, "\ufeff")) {
		line := strings.Trim(l.Text, " \t\r")
		if strings.HasPrefix(line, "[") {
			if !strings.HasSuffix(line, "]") {
				return nil, &lineError{l.Number, "a section must end in ]"}
			}
			section = line[1 : len(line)-1]
			continue
		}
		key, value, ok := strings.Cut(line, "=")
		switch {
		case !ok:
			return nil, &lineError{l.Number, "a line must be KEY=VALUE"}
		case section == "":
			return nil, &lineError{l.Number, "a section such as [Service] must stand before this line"}
		}
		options = append(options, option{section, strings.TrimSpace(key), strings.TrimSpace(value), path, l.Number})
	}
	return options, nil
}

// handUnit is a hand-written service that is being read.
type handUnit struct {
	*App
	s        *source
	template bool
	options  []option
}

// unit reads app.service or app@.service, its drop-ins, and app.socket beside it.
func (s *source) unit() error {
	base := strings.TrimSuffix(filepath.Base(s.Path), ".service")
	name, instance, template := strings.Cut(base, "@")
	if instance != "" {
		return s.fault(s.Shown, 0, "unitgen import "+filepath.Join(filepath.Dir(s.Shown), name+"@.service"), "it is one instance; the template has them all")
	}
	content, err := s.text()
	if err != nil {
		return err
	}
	options, err := parseUnit(s.Shown, content)
	if err != nil {
		return s.iniError(s.Shown, err)
	}
	if slices.ContainsFunc(options, func(o option) bool { return o.section == app.SettingsSection }) {
		return s.fault(s.Shown, 0, "unitgen status "+app.ShellWord(name), "it is a unit of unitgen's already")
	}
	dropins, err := s.glob(s.Path + ".d/*.conf")
	if err != nil {
		return s.fault(s.Shown, 0, "", "%v", err)
	}
	for _, path := range dropins {
		more, err := s.unitFile(path)
		if err != nil {
			return err
		}
		options = append(options, more...)
	}
	u := &handUnit{App: s.add(name, filepath.Base(s.Path), 0), s: s, template: template, options: options}
	u.became(filepath.Base(s.Path), 0, string(u.Name)+".unitgen")
	if strings.Contains(s.dir(), "/systemd/") {
		u.note("(unit)", 0, fmt.Sprintf("the app has a unit of that name, so this one must go first: systemctl disable --now %s; rm %s", filepath.Base(s.Path), app.ShellWord(s.Path)))
	}
	u.read()
	return u.socket(filepath.Join(s.dir(), base+".socket"))
}

func (s *source) unitFile(path string) ([]option, error) {
	text, err := s.readText(path, path)
	if err != nil {
		return nil, s.fault(path, 0, "", "it cannot be read: %v", fault.WithoutPath(err))
	}
	options, err := parseUnit(path, text)
	if err != nil {
		return nil, s.iniError(path, err)
	}
	return options, nil
}

func (u *handUnit) fail(o option, format string, args ...any) {
	u.s.errs = append(u.s.errs, u.s.fault(o.path, o.line, "", format, args...))
}

// last returns the value of a setting that counts once.
func (u *handUnit) last(key string) (option, bool) {
	for i := len(u.options) - 1; i >= 0; i-- {
		if o := u.options[i]; o.key == key && (o.section == "Service" || o.section == "Unit") {
			return o, true
		}
	}
	return option{}, false
}

func (u *handUnit) read() {
	for _, o := range u.options {
		if u.full() {
			return
		}
		u.file = o.path
		switch o.section {
		case "Service":
			u.service(o)
		case "Unit":
			u.unitSetting(o)
		case "Install":
			u.note(o.key, o.line, "--now enables the app; systemctl enable does it too")
		default:
			u.note("["+o.section+"] "+o.key, o.line, "PID 1 has no such section for a service")
		}
	}
	u.command()
	if _, ok := u.last("WorkingDirectory"); !ok {
		u.set("(no WorkingDirectory)", 0, "WorkingDirectory", "/")
	}
	if user, _ := u.last("User"); user.value == "" && u.s.User == "" {
		if dynamic, ok := u.last("DynamicUser"); !ok || !app.Truth(dynamic.value) {
			u.note("(no User)", 0, "PID 1 ran it as root; here it has a user of its own, unless --user= says another")
		}
	}
	if u.template && !u.has("Instances") {
		u.note("(instances)", 0, "the template does not say how many: Instances= does")
	}
}

// unitSetting says what becomes of section [Unit].
func (u *handUnit) unitSetting(o option) {
	switch o.key {
	case "StartLimitBurst":
		u.set(o.key, o.line, "MaxRestarts", o.value)
	case "StartLimitIntervalSec", "StartLimitInterval":
		if _, ok := u.last("StartLimitBurst"); ok {
			u.span(o, "WithinSec")
			return
		}
		u.note(o.key, o.line, "it needs StartLimitBurst=")
	case "Description", "Documentation":
		u.note(o.key, o.line, "the units of an app have one of their own")
	default:
		u.note(o.key, o.line, fmt.Sprintf("a drop-in has it: systemctl edit %s", u.Name.InstanceTemplate()))
	}
}

// serviceReasons are the settings that have no effect, with the reason.
var serviceReasons = map[string]string{
	"ExecReload":      "systemctl reload renews one instance after another",
	"PIDFile":         "PID 1 knows the process, which stays in the foreground",
	"GuessMainPID":    "PID 1 knows the process, which stays in the foreground",
	"NonBlocking":     "each instance has its listener as the program wants it",
	"Sockets":         "the app has sockets of its own: Listen=",
	"RemainAfterExit": "an instance that has ended is not up",
	"BusName":         "instances of an app do not share a name on D-Bus",
	"NotifyAccess":    "Ready=notify says it",
	"DynamicUser":     "an app has a dynamic user unless User= says another",
}

// service says what becomes of a setting of section [Service]: a setting of unitgen, or else the
// same setting as a property.
func (u *handUnit) service(o option) {
	if why, left := serviceReasons[o.key]; left {
		u.note(o.key, o.line, why)
		return
	}
	if over, ok := u.last(o.key); ok && over != o && u.single(o.key) {
		u.note(o.key, o.line, "it stands again later")
		return
	}
	switch o.key {
	case "ExecStart":
	case "Environment":
		u.environment(o)
	case "EnvironmentFile":
		if strings.Contains(o.value, "%") || o.value == "" {
			u.property(o.key, o.line, o.key, o.value)
			return
		}
		u.set(o.key, o.line, o.key, o.value)
	case "User":
		if u.s.User != "" {
			u.note(o.key, o.line, "--user= says another")
			return
		}
		u.set(o.key, o.line, o.key, o.value)
	case "WorkingDirectory":
		if !filepath.IsAbs(o.value) || strings.Contains(o.value, "%") {
			u.fail(o, "WorkingDirectory=%s must be written as a path", o.value)
			return
		}
		u.set(o.key, o.line, o.key, filepath.Clean(o.value))
	case "Type":
		u.serviceType(o)
	case "Restart":
		u.restart(o)
	case "TimeoutSec":
		u.span(o, "StartTimeoutSec")
		u.span(o, "DrainTimeoutSec")
	case "RestartPreventExitStatus":
		u.exitStatus(o)
	default:
		if key := map[string]string{"RestartSec": "RestartDelaySec", "TimeoutStopSec": "DrainTimeoutSec", "TimeoutStartSec": "StartTimeoutSec", "WatchdogSec": "WatchdogSec"}[o.key]; key != "" {
			u.span(o, key)
			return
		}
		if _, err := app.ParseSize(o.value); o.key == "MemoryMax" && err == nil {
			u.set(o.key, o.line, "MaxMemory", o.value)
			return
		}
		u.property(o.key, o.line, o.key, o.value)
	}
}

// single reports whether only the last of several assignments counts.
func (u *handUnit) single(key string) bool {
	switch key {
	case "User", "WorkingDirectory", "Type", "Restart", "RestartSec", "TimeoutStopSec", "TimeoutStartSec", "TimeoutSec", "WatchdogSec", "MemoryMax", "RestartPreventExitStatus":
		return true
	}
	return false
}

// span takes over a time, unless PID 1 reads it as "never".
func (u *handUnit) span(o option, key string) {
	d, err := app.ParseTimeSpan(o.value)
	switch {
	case o.value == "infinity" || err == nil && d == 0:
		u.note(o.key, o.line, fmt.Sprintf("%s= ends some time; it keeps its default", key))
	case err != nil:
		u.fail(o, "%s=%s is no time", o.key, short(o.value))
	case d < app.MinTimeout:
		u.set(o.key, o.line, key, app.FormatTimeSpan(app.MinTimeout))
		u.note(o.key, o.line, "the shortest that it may be")
	case d > app.MaxTimeout:
		u.set(o.key, o.line, key, app.FormatTimeSpan(time.Duration(app.MaxTimeout)))
		u.note(o.key, o.line, "the longest that it may be")
	default:
		u.set(o.key, o.line, key, app.FormatTimeSpan(d))
	}
}

func (u *handUnit) serviceType(o option) {
	switch o.value {
	case "notify", "notify-reload":
		u.set(o.key, o.line, "Ready", app.ReadyNotify)
	case "simple", "exec", "idle":
		u.note(o.key, o.line, "an instance is up when it accepts a connection: Ready=")
	default:
		u.fail(o, "Type=%s does not fit an instance, whose program must stay in the foreground and listen", o.value)
	}
}

func (u *handUnit) restart(o option) {
	switch o.value {
	case "always":
		u.note(o.key, o.line, "it is so")
	case "on-failure", "on-abnormal", "on-abort", "on-watchdog":
		if _, given := u.last("RestartPreventExitStatus"); !given && o.value == "on-failure" {
			u.set(o.key, o.line, "StopExitCodes", "0")
			return
		}
		u.property(o.key, o.line, o.key, o.value)
	default:
		u.property(o.key, o.line, o.key, o.value)
	}
}

func (u *handUnit) exitStatus(o option) {
	codes := strings.Fields(o.value)
	if _, err := app.ParseExitCodes(strings.Join(codes, ",")); err != nil || len(codes) == 0 {
		u.property(o.key, o.line, o.key, o.value)
		return
	}
	if restart, _ := u.last("Restart"); restart.value == "on-failure" && !slices.Contains(codes, "0") {
		codes = append([]string{"0"}, codes...)
	}
	u.set(o.key, o.line, "StopExitCodes", strings.Join(codes, ","))
}

// environment takes over assignments. Those with systemd's specifiers, such as %i, stay a property.
func (u *handUnit) environment(o option) {
	words, err := app.SplitWords(o.value)
	if err != nil {
		u.fail(o, "Environment= cannot be taken apart: %v", err)
		return
	}
	if len(words) == 0 {
		u.fail(o, "Environment= without a value takes back what stands before it: leave out both")
		return
	}
	for _, word := range words {
		key, text, ok := strings.Cut(word, "=")
		plain := strings.ReplaceAll(text, "%%", "")
		switch {
		case !ok:
			u.fail(o, "Environment= must be KEY=VALUE, got %q", short(word))
		case strings.Contains(plain, "%") && !secret(key, text):
			u.property(o.key, o.line, "Environment", app.QuoteWord(word))
		default:
			u.env(o.key, o.line, key, strings.ReplaceAll(text, "%%", "%"), false)
		}
		if key == "PORT" && !strings.Contains(plain, "%") {
			u.listen(o.key, o.line, text)
		}
	}
}

// socket reads app.socket: its addresses become the app's.
func (u *handUnit) socket(path string) error {
	if _, err := os.Lstat(path); errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	options, err := u.s.unitFile(path)
	if err != nil {
		return err
	}
	word := func(o option) string { return filepath.Base(path) + " " + o.key }
	for _, o := range options {
		u.file = o.path
		switch {
		case o.section != "Socket":
			u.note(word(o), o.line, "the app has sockets of its own")
		case o.key == "ListenStream" && o.value != "":
			if i := slices.IndexFunc(u.Settings, func(s Setting) bool { return s.Key == "Listen" && s.word == "Environment" }); i >= 0 {
				u.leaveSetting(i, filepath.Base(path)+" says the address")
			}
			u.set(word(o), o.line, "Listen", o.value)
		case o.key == "Accept" && app.Truth(o.value):
			u.fail(o, "Accept=yes starts a process for each connection, which an app does not")
		case o.key == "ListenDatagram" || o.key == "ListenFIFO" || o.key == "ListenSequentialPacket":
			u.fail(o, "%s= is not possible: unitgen balances TCP and streams of unix sockets", o.key)
		default:
			u.note(word(o), o.line, fmt.Sprintf("a drop-in has it: systemctl edit %s", u.Name.InstanceSocketTemplate()))
		}
	}
	if u.has("Listen") {
		u.set(filepath.Base(path), 0, "Kind", string(app.KindListen))
	}
	return nil
}
