package imports

import (
	"slices"
	"strconv"
	"strings"
)

// dump reads dump.pm2, which "pm2 save" writes: a list of processes, each with its settings, PM2's
// own state, and the whole environment of the shell that started it.
func (s *source) dump() error {
	text, err := s.text()
	if err != nil {
		return err
	}
	tree, err := parseJSON([]byte(text), true)
	if err != nil {
		return s.treeError(err)
	}
	if tree.kind != list {
		return s.fault(s.Shown, tree.line, "", "it is no list of processes, which pm2 save writes, but %s", tree.kind)
	}
	s.result.Env = true
	s.result.Rest.leave("the environment", 0, "all of it is in the files NAME.env: look there for what the apps do not need")
	processes := make(map[string]int)
	var apps []value
	for _, item := range tree.items {
		if item.kind != object {
			s.fail(item.line, "", "a process must be an object, got %s", item.kind)
			continue
		}
		name, _ := item.get("name")
		if processes[name.text]++; processes[name.text] == 1 {
			apps = append(apps, item)
		}
	}
	for _, item := range apps {
		name, _ := item.get("name")
		s.dumped(item, processes[name.text])
	}
	return nil
}

// dumped reads one process as an app of a configuration with that number of instances.
func (s *source) dumped(item value, instances int) {
	env, _ := item.get("env")
	app := value{kind: object, line: item.line}
	var state, shell, repeated []string
	for _, f := range item.fields {
		name := map[string]string{"pm_exec_path": "script", "pm_cwd": "cwd"}[f.key]
		if name == "" && !strings.HasPrefix(f.key, "pm_") {
			if _, known := pm2Keys()[pm2Name(f.key)]; known && pm2Name(f.key) == f.key {
				name = f.key
			}
		}
		_, inEnv := env.get(f.key)
		switch {
		case name == "instances":
			f.value = value{kind: number, line: f.line, text: strconv.Itoa(instances)}
		case name == "env":
			f.value, shell = ownEnvironment(f.value)
		case (name == "args" || name == "node_args") && len(f.items) == 0 && f.kind == list, name == "username", f.kind == null:
			state = append(state, f.key)
			continue
		case name == "" && inEnv:
			repeated = append(repeated, f.key)
			continue
		case name == "":
			state = append(state, f.key)
			continue
		}
		f.key = name
		app.fields = append(app.fields, f)
	}
	if _, ok := item.get("instances"); !ok {
		app.fields = append(app.fields, field{key: "instances", value: value{kind: number, text: strconv.Itoa(instances)}})
	}
	before := len(s.result.Apps)
	s.pm2App(app)
	for _, a := range s.result.Apps[before:] {
		a.leaveAll(state, "PM2's own state")
		a.leaveAll(repeated, "the environment again, and PM2's copy of it")
		a.leaveAll(shell, "of the shell that started PM2, or PM2's own")
	}
}

func (a *App) leaveAll(words []string, why string) {
	if len(words) > 0 {
		slices.Sort(words)
		a.note(strings.Join(words, ", "), 0, why)
	}
}

// ownEnvironment leaves out the variables that a login or PM2 has set, and notes them.
func ownEnvironment(env value) (own value, left []string) {
	own = env
	own.fields = nil
	for _, f := range env.fields {
		if ofShell(f.key) || f.kind == object || f.kind == list {
			left = append(left, f.key)
			continue
		}
		own.fields = append(own.fields, f)
	}
	return own, left
}

// ofShell reports whether a shell, a terminal, a session or PM2 sets the variable.
func ofShell(key string) bool {
	for _, prefix := range []string{"SSH_", "XDG_", "DBUS_", "LC_", "PM2_", "npm_", "NVM_", "SUDO_", "VSCODE_", "TERM_", "COLORTERM", "LESS", "GNOME_", "KDE_", "GTK_", "pm_", "axm_"} {
		if strings.HasPrefix(key, prefix) {
			return true
		}
	}
	switch key {
	case "PATH", "HOME", "SHELL", "USER", "LOGNAME", "PWD", "OLDPWD", "SHLVL", "TERM", "LANG", "LANGUAGE", "LS_COLORS", "MAIL", "_", "HISTSIZE",
		"HISTFILE", "HISTCONTROL", "HOSTNAME", "EDITOR", "VISUAL", "PAGER", "DISPLAY", "WAYLAND_DISPLAY", "TMUX", "TMUX_PANE", "STY", "PS1", "DEBUGINFOD_URLS",
		"INVOCATION_ID", "JOURNAL_STREAM", "SYSTEMD_EXEC_PID", "MANAGERPID", "NODE_APP_INSTANCE", "NODE_CHANNEL_FD", "unique_id", "PIDFILE",
		"BASH_ENV", "WINDOWID", "SESSION_MANAGER", "XAUTHORITY", "DESKTOP_SESSION", "LINES", "COLUMNS":
		return true
	}
	return false
}
