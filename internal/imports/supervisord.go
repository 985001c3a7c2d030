package imports

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/unitgen/unitgen/internal/app"
	"github.com/unitgen/unitgen/internal/fault"
)

// supervisord reads a configuration of supervisord, and the files that it includes.
func (s *source) supervisord() error {
	content, err := s.text()
	if err != nil {
		return err
	}
	sections, err := parseINI(s.Shown, content)
	if err != nil {
		return s.iniError(s.Shown, err)
	}
	included, err := s.included(sections)
	if err != nil {
		return err
	}
	sections = append(sections, included...)
	groups := make(map[string]string)
	for _, section := range sections {
		if name, ok := strings.CutPrefix(section.name, "group:"); ok {
			programs, _ := section.get("programs")
			for _, program := range strings.FieldsFunc(programs.value, func(r rune) bool { return r == ',' || r == '\n' }) {
				groups[strings.TrimSpace(program)] = name
			}
		}
	}
	for _, section := range sections {
		s.section(section, sections, groups)
	}
	if len(s.result.Apps) == 0 && len(s.errs) == 0 {
		s.fail(0, "", "there is no section [program:…] in it")
	}
	return errors.Join(s.errs...)
}

func (s *source) iniError(path string, err error) error {
	if at, ok := errors.AsType[*lineError](err); ok {
		return s.fault(path, at.line, "", "%s", at.msg)
	}
	return err
}

// included reads what [include] names: patterns of files, relative to the source's directory.
// Included files include none.
func (s *source) included(sections []iniSection) ([]iniSection, error) {
	var found []iniSection
	for _, section := range sections {
		files, ok := section.get("files")
		if section.name != "include" || !ok {
			continue
		}
		patterns, err := s.expand(files, map[string]string{"here": s.dir()})
		if err != nil {
			return nil, s.fault(section.path, files.line, "", "%v", err)
		}
		for _, pattern := range strings.Fields(patterns) {
			paths, err := s.glob(joinPath(s.dir(), pattern))
			if err != nil {
				return nil, s.fault(section.path, files.line, "", "%v", err)
			}
			for _, path := range paths {
				text, err := s.readText(path, path)
				if err != nil {
					return nil, s.fault(path, 0, "", "it cannot be read: %v", fault.WithoutPath(err))
				}
				more, err := parseINI(path, text)
				if err != nil {
					return nil, s.iniError(path, err)
				}
				if found = append(found, more...); len(found) > maxApps {
					return nil, s.fault(section.path, files.line, "", "there are more than %d sections", maxApps)
				}
			}
			if len(paths) == 0 {
				s.result.Rest.leave("include", files.line, "no file matches "+pattern)
			}
		}
		s.result.Rest.of("include", files.line).To = []string{strconv.Itoa(len(found)) + " sections read"}
	}
	return found, nil
}

// section says what becomes of a section.
func (s *source) section(section iniSection, all []iniSection, groups map[string]string) {
	kind, name, _ := strings.Cut(section.name, ":")
	rest := func(why string) { s.result.Rest.leave("["+section.name+"]", section.line, why) }
	switch kind {
	case "program":
		s.program(section, name, all, groups)
	case "group":
		rest("PID 1 has slices for groups: Slice=" + name + ".slice of its programs says it")
	case "include":
	case "fcgi-program":
		rest("FastCGI programs take the listener as their standard input, which is not possible here: a unit of systemd with StandardInput=socket does it")
	case "eventlistener":
		rest("it listens to events of supervisord; PID 1 tells them on D-Bus")
	case "supervisord", "supervisorctl", "unix_http_server", "inet_http_server", "rpcinterface", "ctlplugin":
		if kind == "supervisord" {
			if env, ok := section.get("environment"); ok {
				s.result.Rest.of("["+section.name+"] environment", env.line).To = []string{"the environment of each program"}
			}
		}
		rest("it is about supervisord itself; there is no daemon here")
	default:
		rest("supervisord has no such section")
	}
}

// supervised is a program that is being read.
type supervised struct {
	*App
	s       *source
	section iniSection
	vars    map[string]string // of the expansions
}

// program reads one [program:NAME].
func (s *source) program(section iniSection, name string, all []iniSection, groups map[string]string) {
	p := &supervised{App: s.add(name, "[program:"+name+"]", section.line), s: s, section: section}
	p.file = section.path
	group, grouped := groups[name]
	if !grouped {
		group = name
	}
	first := "0"
	if start, ok := section.get("numprocs_start"); ok {
		first = start.value
	}
	count := "1"
	if n, ok := section.get("numprocs"); ok {
		count = n.value
	}
	host, _ := os.Hostname()
	p.vars = map[string]string{"program_name": name, "group_name": group, "process_num": first, "numprocs": count, "here": filepath.Dir(joinPath(s.dir(), section.path)),
		"host_node_name": host}
	if section.path == s.Shown {
		p.vars["here"] = s.dir()
	}
	if grouped {
		p.property("[group:"+group+"]", 0, "Slice", strings.ReplaceAll(group, "-", `\x2d`)+".slice")
	}
	for _, other := range all {
		if env, ok := other.get("environment"); ok && other.name == "supervisord" {
			p.environment(env, "[supervisord] environment")
		}
	}
	p.keys(first)
	if _, ok := section.get("command"); !ok {
		s.errs = append(s.errs, s.fault(section.path, section.line, "", "program %q has no command", name))
	}
	if _, ok := section.get("directory"); !ok {
		p.set("(no directory)", 0, "WorkingDirectory", "/")
	}
	if _, ok := section.get("user"); !ok && s.User == "" {
		p.note("(no user)", 0, "supervisord runs it as its own user, often root; here it has a user of its own, unless --user= says another")
	}
}

// keys says what becomes of each key. process_num is first for all instances.
func (p *supervised) keys(first string) {
	keys := supervisorKeys()
	for _, k := range p.section.keys {
		if p.full() {
			return
		}
		if last, _ := p.section.get(k.key); last != k {
			p.note(k.key, k.line, "it stands again later, which counts")
			continue
		}
		value, err := p.s.expand(k, p.vars)
		if err != nil {
			p.s.errs = append(p.s.errs, p.s.fault(p.section.path, k.line, "", "%s: %v", k.key, err))
			continue
		}
		perProcess := strings.Contains(k.value, "process_num") && k.key != "process_name" && !strings.HasPrefix(k.key, "std")
		k.value = value
		key, known := keys[k.key]
		switch {
		case known && key.take != nil:
			key.take(p, k)
		case known:
			p.note(k.key, k.line, strings.ReplaceAll(key.why, "APP", string(p.Name)))
		case strings.HasPrefix(k.key, "stdout_") || strings.HasPrefix(k.key, "stderr_"):
			p.note(k.key, k.line, "output goes to the journal, which has limits of its own: journalctl --unit '"+string(p.Name)+"@*'")
		default:
			p.note(k.key, k.line, "supervisord has no such key")
		}
		if perProcess {
			p.note(k.key, k.line, "process_num is "+first+" for every instance: all share one command and one port; $INSTANCE tells them apart, from 1")
		}
	}
}

// expansion is %(NAME)s, with a format as Python has it.
var expansion = regexp.MustCompile(`%%|%\(([A-Za-z0-9_]+)\)(0?\d*)([sd])|%`)

// expand replaces the expansions of supervisord. ENV_X is a variable of this process. Everybody can
// read the file that the value goes to, so variables of root are only for sources of root.
func (s *source) expand(k iniKey, vars map[string]string) (string, error) {
	var bad error
	out := expansion.ReplaceAllStringFunc(k.value, func(match string) string {
		if match == "%%" {
			return "%"
		}
		m := expansion.FindStringSubmatch(match)
		if m[1] == "" {
			bad = errors.New(`"%" must be written "%%", or begin an expansion such as %(program_name)s`)
			return ""
		}
		value, ok := vars[m[1]]
		if name, env := strings.CutPrefix(m[1], "ENV_"); env {
			if owner := s.owner(k.path); s.Root && owner != 0 {
				bad = fmt.Errorf("%%(%s)s is a variable of root's, and the file belongs to user %d: that user can import it", m[1], owner)
				return ""
			}
			if value = s.Getenv(name); value == "" {
				bad = fmt.Errorf("%%(%s)s is a variable that is not set here: %s=… unitgen import …", m[1], name)
			}
		} else if !ok {
			bad = fmt.Errorf("supervisord has no %%(%s)s", m[1])
		}
		width, _ := strconv.Atoi(m[2])
		pad := " "
		if strings.HasPrefix(m[2], "0") {
			pad = "0"
		}
		return strings.Repeat(pad, max(0, min(width, 20)-len(value))) + value
	})
	return out, bad
}

// supervisorKey is what becomes of a key of a program.
type supervisorKey struct {
	take func(*supervised, iniKey)
	why  string
}

func supervisorKeys() map[string]supervisorKey {
	return map[string]supervisorKey{
		"command": {take: (*supervised).command},
		"directory": {take: func(p *supervised, k iniKey) {
			p.set(k.key, k.line, "WorkingDirectory", joinPath(p.vars["here"], k.value))
		}},
		"environment":  {take: func(p *supervised, k iniKey) { p.environment(k, k.key) }},
		"numprocs":     {take: func(p *supervised, k iniKey) { p.set(k.key, k.line, "Instances", k.value) }},
		"user":         {take: (*supervised).user},
		"umask":        {take: func(p *supervised, k iniKey) { p.property(k.key, k.line, "UMask", k.value) }},
		"autostart":    {take: (*supervised).autostart},
		"autorestart":  {take: (*supervised).autorestart},
		"exitcodes":    {take: (*supervised).exitCodes},
		"startretries": {why: "an instance is restarted without end, with delays that grow to 10s; MaxRestarts= ends it"},
		"stopsignal":   {take: (*supervised).stopSignal},
		"stopwaitsecs": {take: func(p *supervised, k iniKey) { p.set(k.key, k.line, "DrainTimeoutSec", k.value+"s") }},
		"startsecs":    {take: (*supervised).startSeconds},

		"numprocs_start":  {why: "instances count from 1"},
		"process_name":    {why: "instances are named by their number: APP@1"},
		"priority":        {why: "instances start side by side; After= of a drop-in orders apps"},
		"stopasgroup":     {why: "PID 1 signals every process of an instance: Property=KillMode="},
		"killasgroup":     {why: "PID 1 kills every process of an instance: Property=KillMode="},
		"redirect_stderr": {why: "both go to the journal, in order"},
		"serverurl":       {why: "there is no supervisord to ask"},
	}
}

func (p *supervised) fail(k iniKey, format string, args ...any) {
	p.s.errs = append(p.s.errs, p.s.fault(p.section.path, k.line, "", format, args...))
}

// ofEnvironment is an expansion to a variable of the environment.
var ofEnvironment = regexp.MustCompile(`%\(ENV_([A-Za-z0-9_]+)\)`)

// command is a list of words; supervisord has no shell.
func (p *supervised) command(k iniKey) {
	raw, _ := p.section.get(k.key)
	for _, m := range ofEnvironment.FindAllStringSubmatch(raw.value, -1) {
		if secret(m[1], p.s.Getenv(m[1])) {
			p.fail(k, "command has the value of %s, and everybody can read it in the unit: the program must take it from its environment", m[1])
			return
		}
	}
	argv, _, err := splitWords(strings.ReplaceAll(k.value, "\n", " "))
	if err != nil || len(argv) == 0 {
		p.fail(k, "command cannot be taken apart: %v", err)
		return
	}
	dir, _ := p.section.get("directory")
	if strings.Contains(argv[0], "/") && !filepath.IsAbs(argv[0]) {
		argv[0] = joinPath(joinPath(p.vars["here"], dir.value), argv[0])
	}
	p.set(k.key, k.line, "Command", argv...)
	if name := secretArgument(argv); name != "" {
		p.note(k.key, k.line, "everybody can read "+name+" in the unit, as in the list of processes")
	}
}

// environment reads KEY="value",KEY2=value2.
func (p *supervised) environment(k iniKey, word string) {
	text, err := k.value, error(nil)
	if word != k.key { // else it is expanded already
		text, err = p.s.expand(k, p.vars)
	}
	var vars []app.Assignment
	if err == nil {
		vars, err = supervisorEnvironment(text)
	}
	if err != nil {
		p.fail(k, "environment: %v", err)
		return
	}
	for _, v := range vars {
		p.env(word, k.line, v.Key, v.Value, false)
		if v.Key == "PORT" {
			p.listen(word, k.line, v.Value)
		}
	}
}

func supervisorEnvironment(text string) (vars []app.Assignment, err error) {
	for rest := strings.TrimLeft(text, " \t\r\n,"); rest != ""; rest = strings.TrimLeft(rest, " \t\r\n,") {
		key, after, ok := strings.Cut(rest, "=")
		key, after = strings.TrimSpace(key), strings.TrimLeft(after, " \t")
		if !ok || !app.IsVariable(key) {
			return nil, errors.New(`it must be KEY="VALUE",…`)
		}
		var val string
		if after != "" && (after[0] == '"' || after[0] == '\'') {
			end := closing(after[1:], after[0])
			if end < 0 {
				return nil, fmt.Errorf("the quote of %s has no end", key)
			}
			val, rest = after[1:1+end], after[end+2:]
			if after[0] == '"' {
				val = strings.NewReplacer(`\"`, `"`, `\\`, `\`).Replace(val)
			}
		} else if val, rest, ok = strings.Cut(after, ","); !ok {
			rest = ""
		}
		vars = append(vars, app.Assignment{Key: key, Value: strings.TrimSpace(val)})
	}
	return vars, nil
}

func (p *supervised) user(k iniKey) {
	if p.s.User != "" {
		p.note(k.key, k.line, "--user= says another")
		return
	}
	p.set(k.key, k.line, "User", k.value)
}

func (p *supervised) autostart(k iniKey) {
	if p.Stopped = !app.Truth(k.value); p.Stopped {
		p.note(k.key, k.line, "--now leaves it out: unitgen --file="+string(p.Name)+".unitgen")
		return
	}
	p.note(k.key, k.line, "it is so with --now")
}

// autorestart is "unexpected" by default: no restart after an exit status of exitcodes, which is 0
// by default.
func (p *supervised) autorestart(k iniKey) {
	switch {
	case k.value == "unexpected":
		codes := "0"
		if c, ok := p.section.get("exitcodes"); ok {
			codes = c.value
		}
		p.set(k.key, k.line, "StopExitCodes", strings.ReplaceAll(codes, " ", ""))
	case app.Truth(k.value):
		p.note(k.key, k.line, "it is so")
	default:
		p.property(k.key, k.line, "Restart", "no")
	}
}

func (p *supervised) exitCodes(k iniKey) {
	if restart, ok := p.section.get("autorestart"); ok && restart.value != "unexpected" {
		p.note(k.key, k.line, "they count with autorestart=unexpected")
		return
	}
	if !p.has("StopExitCodes") {
		p.set(k.key, k.line, "StopExitCodes", strings.ReplaceAll(k.value, " ", ""))
	}
}

func (p *supervised) stopSignal(k iniKey) {
	signal := "SIG" + strings.TrimPrefix(strings.ToUpper(k.value), "SIG")
	if !slices.Contains([]string{"SIGTERM", "SIGHUP", "SIGINT", "SIGQUIT", "SIGKILL", "SIGUSR1", "SIGUSR2"}, signal) {
		p.fail(k, "stopsignal must be TERM, HUP, INT, QUIT, KILL, USR1 or USR2, got %q", short(k.value))
		return
	}
	p.property(k.key, k.line, "KillSignal", signal)
}

// startSeconds is how long a program must stay up to count as started.
func (p *supervised) startSeconds(k iniKey) {
	if k.value == "0" {
		p.note(k.key, k.line, "an instance is up when it accepts a connection")
		return
	}
	p.set(k.key, k.line, "SoakSec", k.value+"s")
	p.note(k.key, k.line, "for new code in a reload; at a start an instance is up when it accepts a connection")
}
