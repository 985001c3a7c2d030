package imports

import (
	"encoding/json"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/unitgen/unitgen/internal/app"
)

func (p *pm2App) partOfCommand(f field) {
	switch pm2Name(f.key) {
	case "script", "exec_interpreter":
		p.text(f, func(string) { p.command[pm2Name(f.key)] = f })
	default:
		p.command[pm2Name(f.key)] = f
	}
}

func (p *pm2App) partOfName(f field) {
	p.text(f, func(string) { p.became(f.key, f.line, string(p.Name)+".unitgen") })
}

func (p *pm2App) appendEnv(f field) {
	p.truth(f, func(on bool) {
		if on && p.s.Env != "" {
			p.became(f.key, f.line, string(p.Name)+".unitgen")
			return
		}
		p.note(f.key, f.line, "it adds the name that --env= has")
	})
}

// namespace is a group of apps: a slice.
func (p *pm2App) namespace(f field) {
	p.text(f, func(name string) {
		if name == "default" || name == "" {
			p.note(f.key, f.line, "it is PM2's default")
			return
		}
		slice, err := appName(name)
		if err != nil {
			p.note(f.key, f.line, fmt.Sprintf("%q cannot name a slice", name))
			return
		}
		// "-" separates levels in the name of a slice (systemd.slice(5)).
		p.property(f.key, f.line, "Slice", strings.ReplaceAll(string(slice), "-", `\x2d`)+".slice")
	})
}

func (p *pm2App) directory(f field) {
	p.text(f, func(string) { p.set(f.key, f.line, "WorkingDirectory", p.cwd) })
}

func (p *pm2App) user(f field) {
	p.text(f, func(name string) {
		if p.s.User != "" {
			p.note(f.key, f.line, "--user= says another")
			return
		}
		p.set(f.key, f.line, "User", name)
	})
}

func (p *pm2App) instances(f field) {
	if f.text == "max" || f.text == "" {
		p.set(f.key, f.line, "Instances", "max")
		return
	}
	p.number(f, func(n int64) {
		switch {
		case n == 0:
			p.set(f.key, f.line, "Instances", "max")
		case n < 0:
			cpus := p.s.CPUs()
			p.set(f.key, f.line, "Instances", strconv.FormatInt(max(1, int64(cpus)+n), 10))
			p.note(f.key, f.line, fmt.Sprintf("%d of the %d CPUs of this machine; it does not follow them", int64(cpus)+n, cpus))
		default:
			p.set(f.key, f.line, "Instances", strconv.FormatInt(n, 10))
		}
	})
}

func (p *pm2App) mode(f field) {
	switch f.text {
	case "cluster", "cluster_mode":
		p.note(f.key, f.line, "the instances of every app share its port")
	case "fork", "fork_mode":
		p.note(f.key, f.line, "the program runs as by hand; its instances share the port")
	default:
		p.s.fail(f.line, "", "exec_mode must be cluster or fork, got %q", short(f.text))
	}
}

// memory reads PM2's sizes. They are systemd's, except 0.
func (p *pm2App) memory(f field) {
	p.text(f, func(size string) {
		if bytes, err := app.ParseSize(strings.ToUpper(size)); err != nil {
			p.s.fail(f.line, "", "%s must be a size such as 300M, got %q", f.key, short(size))
		} else if bytes == 0 {
			p.note(f.key, f.line, "0 is no limit")
		} else {
			p.set(f.key, f.line, "MemoryReload", bytes.String())
		}
	})
}

func (p *pm2App) restartDelay(f field) {
	p.number(f, func(ms int64) {
		switch {
		case ms == 0:
			p.note(f.key, f.line, "0 is the default")
		case p.has("RestartDelaySec"):
			p.note(f.key, f.line, "another key says the delay already")
		default:
			p.milliseconds(f.key, f.line, "RestartDelaySec", ms)
			p.note(f.key, f.line, "the first delay; later ones grow to 10s")
		}
	})
}

func (p *pm2App) sourceMaps(f field) {
	p.truth(f, func(on bool) {
		if !on {
			p.note(f.key, f.line, "it is off, as here")
			return
		}
		p.App.env(f.key, f.line, "NODE_OPTIONS", "--enable-source-maps", false)
	})
}

func (p *pm2App) cron(f field) {
	p.text(f, func(pattern string) {
		if pattern == "0" || pattern == "" {
			p.note(f.key, f.line, "it is off")
			return
		}
		at, err := calendar(pattern)
		if err != nil {
			p.note(f.key, f.line, fmt.Sprintf("%q cannot be written as a calendar expression: %v; ReloadAt= takes one", short(pattern), err))
			return
		}
		p.set(f.key, f.line, "ReloadAt", at)
		p.note(f.key, f.line, "a reload, one instance after another")
	})
}

func (p *pm2App) autostart(f field) {
	p.truth(f, func(on bool) {
		if p.Stopped = !on; on {
			p.note(f.key, f.line, "it is so with --now")
			return
		}
		p.note(f.key, f.line, "--now leaves it out: unitgen --file="+string(p.Name)+".unitgen")
	})
}

func (p *pm2App) autorestart(f field) {
	p.truth(f, func(on bool) {
		if on {
			p.note(f.key, f.line, "it is so")
			return
		}
		p.property(f.key, f.line, "Restart", "no")
	})
}

func (p *pm2App) exitCodes(f field) {
	p.texts(f, func(codes []string) {
		if len(codes) == 0 {
			p.note(f.key, f.line, "it has no value")
			return
		}
		slices.Sort(codes)
		p.set(f.key, f.line, "StopExitCodes", strings.Join(slices.Compact(codes), ","))
	})
}

// maxRestarts sets the limit within the time that this many restarts take, with delays that grow to
// 10 seconds.
func (p *pm2App) maxRestarts(f field) {
	p.number(f, func(n int64) {
		if n <= 0 {
			p.note(f.key, f.line, "instances are restarted without end; MaxRestarts= takes 1 and more")
			return
		}
		p.set(f.key, f.line, "MaxRestarts", strconv.FormatInt(n, 10))
		p.set(f.key, f.line, "WithinSec", app.FormatTimeSpan(time.Duration(min(n*15, 24*60*60))*time.Second))
		p.note(f.key, f.line, "restarts of any run, within the time that so many take at most")
	})
}

func (p *pm2App) minUptime(f field) {
	p.note(f.key, f.line, "each automatic restart counts for MaxRestarts=, however long the run was")
}

// watch takes single paths. PM2 also watches everything below them.
func (p *pm2App) watch(f field) {
	if f.kind == truth || f.text == "true" || f.text == "false" {
		p.truth(f, func(on bool) {
			if on {
				p.note(f.key, f.line, whyWatch)
				return
			}
			p.note(f.key, f.line, "it is off, as here")
		})
		return
	}
	p.texts(f, func(paths []string) {
		for _, path := range paths {
			if strings.ContainsAny(path, "*?[{!") {
				p.note(f.key, f.line, fmt.Sprintf("%q is a pattern; %s", path, whyWatch))
				continue
			}
			path = joinPath(p.cwd, path)
			p.set(f.key, f.line, "Watch", path)
			if st, err := os.Stat(path); err == nil && st.IsDir() {
				p.note(f.key, f.line, "only what is in the directory itself, not in those below it")
			}
		}
	})
}

func (p *pm2App) instanceVar(f field) {
	p.text(f, func(name string) {
		if name == "NODE_APP_INSTANCE" {
			p.note(f.key, f.line, "programs for Node.js have it")
			return
		}
		p.note(f.key, f.line, "NODE_APP_INSTANCE counts from 0; by another name from 1: Property=Environment="+name+"=%i")
	})
}

// environment notes env. The variables of --env= win over it.
func (p *pm2App) environment(f field) {
	vars, ok := p.variables(f)
	if !ok {
		return
	}
	for _, v := range vars {
		if _, over := p.vars[v.key]; !over {
			p.vars[v.key] = field{key: f.key, line: v.line, value: v.value}
		}
	}
	if len(vars) == 0 {
		p.note(f.key, f.line, "it is empty")
	}
}

// environmentOf notes an env_NAME.
func (p *pm2App) environmentOf(f field) {
	name := strings.TrimPrefix(f.key, "env_")
	if name != p.s.Env {
		p.note(f.key, f.line, "--env="+name+" takes it")
		return
	}
	vars, ok := p.variables(f)
	if !ok {
		return
	}
	for _, v := range vars {
		p.vars[v.key] = field{key: f.key, line: v.line, value: v.value}
	}
	if len(vars) == 0 {
		p.note(f.key, f.line, "it is empty")
	}
}

// variables returns the variables of an object, or of a text of assignments.
func (p *pm2App) variables(f field) ([]field, bool) {
	switch f.kind {
	case object:
		return f.fields, true
	case text:
		words, _, err := splitWords(f.text)
		var vars []field
		for _, word := range words {
			key, val, ok := strings.Cut(word, "=")
			if !ok {
				err = fmt.Errorf("%q is not KEY=VALUE", short(word))
				break
			}
			vars = append(vars, field{key: key, line: f.line, value: value{kind: text, text: val, line: f.line}})
		}
		if err == nil {
			return vars, true
		}
	}
	p.s.fail(f.line, "", "%s must be an object of variables, got %s", f.key, f.kind)
	return nil, false
}

// setEnvironment adds the variables, sorted by name, and makes the app's address of PORT.
func (p *pm2App) setEnvironment() {
	for _, key := range sortedKeys(p.vars) {
		f := p.vars[key]
		text := f.text
		switch f.kind {
		case null:
			p.note(f.key, f.line, key+" has no value")
			continue
		case list, object:
			text = toJSON(f.value)
		}
		if key == "PORT" && p.port.key != "" {
			p.note(f.key, f.line, "port says another PORT")
			continue
		}
		if key == "NODE_OPTIONS" {
			if set, has := p.variable(key); has { // of source_map_support
				p.drop("Environment", key+"="+set)
				text += " " + set
			}
		}
		p.App.env(f.key, 0, key, text, p.s.result.Env)
	}
	if p.port.key != "" {
		p.App.env(p.port.key, p.port.line, "PORT", p.port.text, false)
		p.listen(p.port.key, p.port.line, p.port.text)
	} else if port, ok := p.vars["PORT"]; ok && port.kind != null {
		p.listen(port.key, 0, port.text)
	}
}

// drop removes a setting.
func (a *App) drop(key, value string) {
	a.Settings = slices.DeleteFunc(a.Settings, func(s Setting) bool { return s.Key == key && s.Values[0] == value })
}

func sortedKeys[V any](m map[string]V) []string {
	keys := make([]string, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	return keys
}

// toJSON returns a value as PM2 writes it into the environment.
func toJSON(v value) string {
	text, err := json.Marshal(v.plain())
	if err != nil {
		return ""
	}
	return string(text)
}

func (v value) plain() any {
	switch v.kind {
	case null:
		return nil
	case number:
		return json.Number(v.text)
	case truth:
		return v.text == "true"
	case list:
		out := make([]any, len(v.items))
		for i, item := range v.items {
			out[i] = item.plain()
		}
		return out
	case object:
		out := make(map[string]any, len(v.fields))
		for _, f := range v.fields {
			out[f.key] = f.plain()
		}
		return out
	}
	return v.text
}
