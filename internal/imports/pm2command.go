package imports

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
)

// interpreters are the programs with which PM2 runs a script that names none, by the script's
// extension.
var interpreters = map[string]string{
	".js": "node", ".cjs": "node", ".mjs": "node", ".ts": "bun", ".tsx": "bun", ".coffee": "coffee", ".ls": "lsc",
	".sh": "bash", ".py": "python3", ".rb": "ruby", ".php": "php", ".pl": "perl",
}

// setCommand makes the argv of script, args, interpreter and node_args.
func (p *pm2App) setCommand() {
	f, ok := p.command["script"]
	if !ok || f.text == "" {
		p.s.fail(p.line, "", "app %q has no script", p.Name)
		return
	}
	if f.text == "serve" && p.command["exec_interpreter"].key == "" {
		p.Skip = "it is PM2's own server of files; nginx or Caddy serve them"
		p.note(f.key, f.line, p.Skip)
		return
	}
	args, ok := p.words("args")
	options, fine := p.words("node_args")
	if !ok || !fine {
		return
	}
	argv := p.program(f, options)
	if argv == nil {
		return
	}
	argv = append(argv, args...)
	var parts []string // the words that the command is made of, in their order
	for _, name := range []string{"script", "args", "exec_interpreter", "node_args"} {
		if part := p.command[name]; part.key != "" {
			parts = append(parts, part.key)
		}
	}
	word := strings.Join(parts, ", ")
	p.set(word, f.line, "Command", argv...)
	if name := secretArgument(argv); name != "" {
		p.note(word, f.line, "everybody can read "+name+" in the unit, as in the list of processes")
	}
}

// words returns the arguments of a key that takes a list or a text of them.
func (p *pm2App) words(name string) (words []string, ok bool) {
	f, has := p.command[name]
	if !has {
		return nil, true
	}
	if f.kind == list {
		p.texts(f, func(texts []string) { words, ok = texts, true })
		return words, ok
	}
	if f.kind == object {
		p.s.fail(f.line, "", "%s must be a list of arguments, got %s", f.key, f.kind)
		return nil, false
	}
	words, _, err := splitWords(f.text)
	if err != nil {
		p.s.fail(f.line, "", "%s cannot be taken apart: %v: %q", f.key, err, short(f.text))
		return nil, false
	}
	return words, true
}

// program returns the words of the command before the script.
func (p *pm2App) program(f field, options []string) []string {
	script := f.text
	interpreter, given := p.command["exec_interpreter"]
	switch {
	case given && interpreter.text != "none" && interpreter.text != "":
		name, version, _ := strings.Cut(interpreter.text, "@")
		if version != "" && !strings.Contains(interpreter.text, "/") {
			p.note(interpreter.key, interpreter.line, fmt.Sprintf("the node of $PATH; to use version %s give its path: Command=/PATH/TO/node", version))
		} else {
			name = interpreter.text
		}
		return append(append([]string{p.executable(name)}, options...), script)
	case given:
	case strings.ContainsAny(script, " \t") && !p.exists(script):
		assignments, argv, err := commandLine(script)
		if err != nil || len(argv) == 0 {
			p.s.fail(f.line, "", "%s cannot be taken apart: %v: %q", f.key, err, short(script))
			return nil
		}
		for _, a := range assignments {
			key, text, _ := strings.Cut(a, "=")
			p.App.env(f.key, f.line, key, text, false)
		}
		argv[0] = p.executable(argv[0])
		return argv
	case interpreters[filepath.Ext(script)] != "":
		if ext := filepath.Ext(script); ext == ".ts" || ext == ".tsx" {
			p.note(f.key, f.line, "PM2 runs it with bun, or with a node that knows TypeScript")
		}
		return append(append([]string{interpreters[filepath.Ext(script)]}, options...), script)
	case p.isText(script):
		return append(append([]string{"node"}, options...), script)
	}
	return append([]string{p.executable(script)}, options...)
}

// executable returns a program as Command= has it. A name with a slash counts from the app's
// directory. Other names are looked up in $PATH, unless the directory has a file of that name.
func (p *pm2App) executable(name string) string {
	if filepath.IsAbs(name) || !strings.Contains(name, "/") && !p.exists(name) {
		return name
	}
	return joinPath(p.cwd, name)
}

func (p *pm2App) exists(name string) bool {
	st, err := os.Stat(joinPath(p.cwd, name))
	return err == nil && st.Mode().IsRegular()
}

// isText reports whether a file exists and the kernel cannot execute it. PM2 runs such a file as
// JavaScript.
func (p *pm2App) isText(name string) bool {
	if !p.exists(name) {
		return false
	}
	f, err := os.Open(joinPath(p.cwd, name))
	if err != nil {
		return false
	}
	defer f.Close()
	head, _ := bufio.NewReader(io.LimitReader(f, 4)).Peek(4)
	return !strings.HasPrefix(string(head), "#!") && !strings.HasPrefix(string(head), "\x7fELF") && !strings.Contains(string(head), "\x00")
}
