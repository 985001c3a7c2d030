package imports

import (
	"errors"
	"fmt"
	"net/netip"
	"path/filepath"
	"strconv"
	"strings"
)

// pm2App is an app of PM2 that is being read.
type pm2App struct {
	*App
	s       *source
	cwd     string // absolute
	command map[string]field
	vars    map[string]field // env and env_NAME, by key
	port    field
}

// pm2Key says what becomes of a key of PM2's configuration (docs/pm2.md). A key without take has a
// reason.
type pm2Key struct {
	take func(*pm2App, field)
	why  string
}

// Reasons that several keys have in common.
const (
	whyJournal = "output goes to the journal, which has limits of its own: journalctl --unit 'APP@*'"
	whyPlus    = "it is for PM2+, which has nothing to do with the app here"
	whyCLI     = "it is an option of PM2's command line"
	whyWatch   = "PID 1 watches single paths, each named: Watch=PATH"
)

// pm2Keys has every key of PM2's schema, and the keys of its command line that configurations also
// have.
func pm2Keys() map[string]pm2Key {
	return map[string]pm2Key{
		"script":           {take: (*pm2App).partOfCommand},
		"args":             {take: (*pm2App).partOfCommand},
		"exec_interpreter": {take: (*pm2App).partOfCommand},
		"node_args":        {take: (*pm2App).partOfCommand},

		"name":               {take: (*pm2App).partOfName},
		"name_prefix":        {take: (*pm2App).partOfName},
		"append_env_to_name": {take: (*pm2App).appendEnv},
		"namespace":          {take: (*pm2App).namespace},
		"cwd":                {take: (*pm2App).directory},
		"env":                {take: (*pm2App).environment},
		"port":               {take: (*pm2App).takePort},
		"uid":                {take: (*pm2App).user},
		"gid":                {take: func(p *pm2App, f field) { p.text(f, func(t string) { p.property(f.key, f.line, "Group", t) }) }},
		"instances":          {take: (*pm2App).instances},
		"exec_mode":          {take: (*pm2App).mode},

		"max_memory_restart":        {take: (*pm2App).memory},
		"restart_delay":             {take: (*pm2App).restartDelay},
		"exp_backoff_restart_delay": {take: (*pm2App).restartDelay},
		"kill_timeout":              {take: func(p *pm2App, f field) { p.time(f, "DrainTimeoutSec") }},
		"listen_timeout":            {take: func(p *pm2App, f field) { p.time(f, "StartTimeoutSec") }},
		"wait_ready":                {take: func(p *pm2App, f field) { p.flag(f, "Ready", "message") }},
		"shutdown_with_message":     {take: func(p *pm2App, f field) { p.flag(f, "ShutdownMessage", "yes") }},
		"source_map_support":        {take: (*pm2App).sourceMaps},
		"cron_restart":              {take: (*pm2App).cron},
		"autostart":                 {take: (*pm2App).autostart},
		"autorestart":               {take: (*pm2App).autorestart},
		"stop_exit_codes":           {take: (*pm2App).exitCodes},
		"max_restarts":              {take: (*pm2App).maxRestarts},
		"min_uptime":                {take: (*pm2App).minUptime},
		"watch":                     {take: (*pm2App).watch},
		"instance_var":              {take: (*pm2App).instanceVar},

		"watch_delay":   {why: "PID 1 reports a change at once"},
		"ignore_watch":  {why: whyWatch},
		"watch_options": {why: whyWatch},
		"increment_var": {why: "instances have numbers: Property=Environment=METRICS_PORT=910%i; the app's port is one for all"},

		"out_file": {why: whyJournal}, "error_file": {why: whyJournal}, "log_file": {why: whyJournal}, "merge_logs": {why: whyJournal},
		"disable_logs":    {why: whyJournal + "; Property=StandardOutput=null drops it"},
		"log_type":        {why: "the journal has fields: journalctl --output=json"},
		"log_date_format": {why: "the journal has the time of each line: journalctl --output=short-iso"},
		"time":            {why: "the journal has the time of each line: journalctl --output=short-iso"},

		"filter_env":                 {why: "an instance inherits nothing from a shell"},
		"install_url":                {why: "import installs nothing"},
		"pid_file":                   {why: "PID 1 knows the process: systemctl show --property=MainPID APP@1"},
		"disable_source_map_support": {why: "node has it off unless node_args has --enable-source-maps"},
		"vizion":                     {why: "nothing here reads the version control of the app"},
		"post_update":                {why: "unitgen deploys nothing: build, then systemctl reload APP"},
		"treekill":                   {why: "PID 1 ends every process of an instance, whoever its parent is: Property=KillMode="},
		"kill_retry_time":            {why: "PID 1 is told when a process ends, and does not ask again"},
		"windowsHide":                {why: "it is for Windows"},
		"execute_command":            {why: whyCLI}, "force": {why: whyCLI}, "write": {why: whyCLI},
		"username": {why: "it is the user who ran PM2; uid is the one of the app"},
		"pmx":      {why: whyPlus}, "automation": {why: whyPlus}, "io": {why: whyPlus}, "trace": {why: whyPlus}, "disable_trace": {why: whyPlus},
		"v8": {why: whyPlus}, "event_loop_inspector": {why: whyPlus}, "deep_monitoring": {why: whyPlus},
	}
}

// pm2Name returns the key that a word of a configuration stands for: PM2 has aliases for some keys.
func pm2Name(word string) string {
	if name := pm2Aliases[word]; name != "" {
		return name
	}
	return word
}

var pm2Aliases = map[string]string{
	"exec": "script", "cmd": "script", "command": "script", "interpreter": "exec_interpreter",
	"interpreterArgs": "node_args", "interpreter_args": "node_args",
	"out": "out_file", "output": "out_file", "out_log": "out_file",
	"error": "error_file", "err": "error_file", "err_file": "error_file", "err_log": "error_file",
	"log": "log_file", "pid": "pid_file", "cron": "cron_restart", "combine_logs": "merge_logs", "user": "uid",
}

// ecosystem reads a configuration in JSON or YAML.
func (s *source) ecosystem() error {
	text, err := s.text()
	if err != nil {
		return err
	}
	var tree value
	if strings.EqualFold(filepath.Ext(s.Path), ".json") {
		if tree, err = parseJSON([]byte(text), true); err != nil {
			tree, err = parseRelaxed(text)
		}
	} else {
		tree, err = parseYAML(text)
	}
	if err != nil {
		return s.treeError(err)
	}
	return s.configuration(tree)
}

func (s *source) treeError(err error) error {
	if at, ok := errors.AsType[*lineError](err); ok {
		return s.fault(s.Shown, at.line, "", "%s", at.msg)
	}
	return s.fault(s.Shown, 0, "", "%v", err)
}

// configuration reads a configuration: an object with apps, a list of apps, or one app.
func (s *source) configuration(tree value) error {
	if inner, ok := tree.get("default"); ok && tree.kind == object && inner.kind == object {
		tree = inner.value // what a module of ECMAScript exports
	}
	apps := tree
	if tree.kind == object {
		f, ok := tree.get("apps")
		if !ok {
			f, ok = tree.get("pm2") // of older files
		}
		if ok {
			apps = f.value
			for _, other := range tree.fields {
				if other.key != f.key {
					s.topLevel(other)
				}
			}
		}
	}
	_, isApp := firstField(apps, "script")
	switch {
	case apps.kind == object && isApp:
		apps = value{kind: list, items: []value{apps}}
	case apps.kind == list:
	default:
		return s.fault(s.Shown, apps.line, "", "there are no apps: a configuration is a list of them, or an object with apps, got %s", apps.kind)
	}
	if len(apps.items) > maxApps {
		return s.fault(s.Shown, apps.line, "", "it has %d apps, more than %d", len(apps.items), maxApps)
	}
	for _, item := range apps.items {
		if item.kind != object {
			s.fail(item.line, "", "an app must be an object, got %s", item.kind)
			continue
		}
		s.pm2App(item)
	}
	return nil
}

// topLevel says what becomes of the keys beside the apps.
func (s *source) topLevel(f field) {
	switch f.key {
	case "deploy":
		s.result.Rest.leave(f.key, f.line, "unitgen deploys nothing: copy the files by what you have, then systemctl reload APP")
	case "static":
		s.result.Rest.leave(f.key, f.line, "PM2's own server of files has nothing here: nginx or Caddy serve them")
	case "pm2":
		s.result.Rest.leave(f.key, f.line, "settings of PM2's daemon; there is none here")
	default:
		s.result.Rest.leave(f.key, f.line, "PM2 has no such key beside apps")
	}
}

// pm2App reads one app.
func (s *source) pm2App(item value) {
	p := &pm2App{s: s, cwd: s.dir(), command: make(map[string]field), vars: make(map[string]field)}
	name, word, line := s.pm2AppName(item)
	p.App = s.add(name, word, line)
	if f, ok := firstField(item, "cwd"); ok && f.kind == text && f.text != "" {
		p.cwd = joinPath(p.cwd, f.text)
	}
	keys := pm2Keys()
	for i, f := range item.fields {
		if p.full() {
			return
		}
		canonical := pm2Name(f.key)
		if over, ok := lastOf(item.fields[i+1:], canonical); ok {
			p.note(f.key, f.line, over.key+" says the same, and wins")
			continue
		}
		key, known := keys[canonical]
		switch {
		case f.kind == null:
			p.note(f.key, f.line, "it has no value")
		case known && key.take != nil:
			key.take(p, f)
		case known:
			p.note(f.key, f.line, strings.ReplaceAll(key.why, "APP", string(p.Name)))
		case strings.HasPrefix(f.key, "env_"):
			p.environmentOf(f)
		default:
			p.note(f.key, f.line, "PM2 has no such key")
		}
	}
	p.setCommand()
	p.setEnvironment()
	if _, ok := firstField(item, "cwd"); !ok {
		p.set("(no cwd)", 0, "WorkingDirectory", p.cwd)
	}
}

// pm2AppName returns the name that PM2 gives an app, and the word that says so.
func (s *source) pm2AppName(item value) (name, word string, line int) {
	word, line = "script", item.line
	if f, ok := firstField(item, "script"); ok {
		base, _, _ := strings.Cut(filepath.Base(f.text), " ")
		name, word, line = strings.TrimSuffix(base, filepath.Ext(base)), f.key, f.line
	}
	if f, ok := firstField(item, "name"); ok && f.text != "" {
		name, word, line = f.text, f.key, f.line
	}
	if f, ok := firstField(item, "name_prefix"); ok {
		name = f.text + name
	}
	if f, ok := firstField(item, "append_env_to_name"); ok && f.text == "true" && s.Env != "" {
		name += "-" + s.Env
	}
	return name, word, line
}

// firstField finds a key by any of its names.
func firstField(item value, name string) (field, bool) { return lastOf(item.fields, name) }

func lastOf(fields []field, name string) (field, bool) {
	for i := len(fields) - 1; i >= 0; i-- {
		if pm2Name(fields[i].key) == name && fields[i].kind != null {
			return fields[i], true
		}
	}
	return field{}, false
}

func joinPath(dir, path string) string {
	if filepath.IsAbs(path) {
		return filepath.Clean(path)
	}
	return filepath.Join(dir, path)
}

// The kinds of a value. Where PM2 takes a number, it also takes a text with a number.

func (p *pm2App) text(f field, use func(string)) {
	if f.kind != text && f.kind != number {
		p.s.fail(f.line, "", "%s must be a text, got %s", f.key, f.kind)
		return
	}
	use(f.text)
}

func (p *pm2App) number(f field, use func(int64)) {
	n, err := strconv.ParseInt(f.text, 10, 64)
	if err != nil {
		if real, e := strconv.ParseFloat(f.text, 64); e == nil && real == float64(int64(real)) {
			n, err = int64(real), nil
		}
	}
	if f.kind != text && f.kind != number || err != nil {
		p.s.fail(f.line, "", "%s must be a whole number, got %q", f.key, short(f.text))
		return
	}
	use(n)
}

func (p *pm2App) truth(f field, use func(bool)) {
	if f.kind != truth && f.text != "true" && f.text != "false" {
		p.s.fail(f.line, "", "%s must be true or false, got %q", f.key, short(f.text))
		return
	}
	use(f.text == "true")
}

// texts calls use with the values of a key that takes one text or several.
func (p *pm2App) texts(f field, use func([]string)) {
	items := f.items
	if f.kind != list {
		items = []value{f.value}
	}
	var out []string
	for _, item := range items {
		if item.kind == list || item.kind == object {
			p.s.fail(item.line, "", "%s must be a list of texts, got %s in it", f.key, item.kind)
			return
		}
		if item.kind != null {
			out = append(out, item.text)
		}
	}
	use(out)
}

func short(s string) string {
	if len(s) > 40 {
		return s[:40] + "…"
	}
	return s
}

// flag sets a key where the value is true.
func (p *pm2App) flag(f field, key, set string) {
	p.truth(f, func(on bool) {
		if !on {
			p.note(f.key, f.line, "it is off, as here")
			return
		}
		p.set(f.key, f.line, key, set)
	})
}

// time sets a time-out. PM2 has it in milliseconds.
func (p *pm2App) time(f field, key string) {
	p.number(f, func(ms int64) {
		if ms == 0 {
			p.note(f.key, f.line, "0 is the default")
			return
		}
		p.milliseconds(f.key, f.line, key, ms)
	})
}

// takePort notes the port. setEnvironment makes an address of it.
func (p *pm2App) takePort(f field) {
	p.number(f, func(int64) { p.port = f })
}

// listen returns the address of a port. The host comes from the variables that name one, if any
// does.
func (a *App) listen(word string, line int, port string) {
	n, err := strconv.ParseUint(port, 10, 16)
	if err != nil || n == 0 {
		a.note(word, line, fmt.Sprintf("PORT is no port that can be served, %q", short(port)))
		return
	}
	if a.has("Listen") {
		return
	}
	for _, key := range []string{"HOST", "BIND_ADDRESS", "LISTEN_ADDRESS"} {
		host, _ := a.variable(key)
		if host == "localhost" {
			host = "127.0.0.1"
		}
		if addr, err := netip.ParseAddr(host); err == nil {
			a.set(word, line, "Listen", netip.AddrPortFrom(addr, uint16(n)).String())
			return
		}
	}
	a.set(word, line, "Listen", port)
}
