package doctor

import (
	"cmp"
	"debug/elf"
	"errors"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/unitgen/unitgen/internal/app"
	"github.com/unitgen/unitgen/internal/fault"
	"github.com/unitgen/unitgen/internal/program"
	"github.com/unitgen/unitgen/internal/regular"
)

// mostInterpreters is how many scripts and env(1) may stand before the program itself; the kernel
// follows five scripts (exec_binprm() in fs/exec.c).
const mostInterpreters = 6

// CheckExecutable refuses a file that the kernel cannot execute. given is how the user wrote its
// path. A file that cannot be looked at is let pass: the app's user may have more rights.
func CheckExecutable(given, file string) error {
	return executable("the command", given, file, "")
}

// executable is CheckExecutable with the words that the error begins with, and a hint for files
// that do not exist.
func executable(what, given, file, hint string) error {
	st, err := os.Stat(file)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return fault.Input(hint, "%s %q does not exist", what, given)
	case errors.Is(err, fs.ErrPermission):
		return nil
	case err != nil:
		return fault.Input("", "%s %q cannot be used: %v", what, given, err)
	case st.IsDir():
		return fault.Input("", "%s %q is a directory", what, given)
	case !st.Mode().IsRegular():
		return fault.Input("", "%s %q is not a regular file", what, given)
	case st.Mode()&0o111 == 0:
		return fault.Input("chmod +x "+app.ShellWord(given), "%s %q is not executable", what, given)
	}
	return nil
}

// command is an app's command on the way to the program that runs in the end.
type command struct {
	app     app.App
	given   string // what the user wrote for the first word
	argv    []string
	subject string   // what the error is about
	path    string   // $PATH in the unit; empty: not known
	assigns []string // what env(1) adds to the environment
}

// CheckCommand follows an app's command to every program that the kernel executes for it, and makes
// sure that each is there: the interpreter of a script, what env(1) and "sh -c 'exec ...'" start,
// and the dynamic loader. Else the first thing the user sees is an instance that restarts. given is
// what the user wrote for the first word; empty: the same.
//
// It reads at most the first page of each file. What it cannot see, it lets pass: files of other
// users, and apps that have a file system of their own.
func CheckCommand(a app.App, given string) error {
	if len(a.Command) == 0 || !filepath.IsAbs(a.Command[0]) || a.HasOwnFiles() {
		return nil
	}
	given = cmp.Or(given, a.Command[0])
	c := command{app: a, given: given, argv: a.Command, subject: "the command " + strconv.Quote(given), path: unitPath(a)}
	if err := executable("the command", given, a.Command[0], c.retype("COMMAND")); err != nil {
		return err
	}
	for range mostInterpreters {
		more, err := c.step()
		if err != nil || !more {
			return err
		}
	}
	return nil
}

// unitPath is $PATH of the program; empty for a user's manager, and for a file of variables, which
// may set it.
func unitPath(a app.App) string {
	if a.UserUnits || len(a.EnvironmentFiles) > 0 {
		return ""
	}
	for _, p := range a.Properties {
		if p.Key == "Environment" || p.Key == "PassEnvironment" || p.Key == "ExecSearchPath" {
			return ""
		}
	}
	found := program.UnitPath
	for _, v := range a.Environment {
		if v.Key == "PATH" {
			found = v.Value
		}
	}
	return found
}

// retype is the command that gives the app another command.
func (c *command) retype(words string) string {
	text := "unitgen " + cmp.Or(string(c.app.Name), "app")
	if c.app.UserUnits {
		text += " --user-units"
	}
	for _, word := range c.assigns {
		text += " " + app.ShellWord("--env="+word)
	}
	return text + " -- " + words
}

// step goes from the first word of argv to the program that it starts; false if there is no other.
func (c *command) step() (more bool, err error) {
	file := c.argv[0]
	if path.Base(file) == "env" {
		return c.stepEnv()
	}
	words, crlf := program.Script(file)
	if len(words) == 0 {
		if replaced := program.Replaced(c.argv); !slices.Equal(replaced, c.argv) && plainWords(replaced) {
			return c.starts("starts", replaced[0], replaced)
		}
		return false, c.loader(file)
	}
	if crlf {
		return false, fault.Input(`sed -i 's/\r$//' `+app.ShellWord(c.given),
			"%s is a script with the line ends of Windows (CR LF), for which the kernel finds no interpreter", c.subject)
	}
	argv := append(slices.Clone(words), c.argv...)
	if path.Base(words[0]) == "env" && program.IsExecutable(words[0]) {
		behind := program.Behind(words)
		if len(behind) == 0 || slices.ContainsFunc(words[:len(words)-len(behind)], func(word string) bool { return word[0] == '-' && word != "-S" }) {
			return false, nil // options that change what the words behind them mean
		}
		return c.starts("is a script for", behind[0], append(behind, c.argv...))
	}
	return c.starts("is a script for", words[0], argv)
}

// stepEnv is step for env(1) that a user has typed.
func (c *command) stepEnv() (more bool, err error) {
	for i, word := range c.argv[1:] {
		key, value, assignment := strings.Cut(word, "=")
		switch {
		case strings.HasPrefix(word, "-"):
			return false, nil
		case !assignment:
			return c.starts("starts", word, c.argv[1+i:])
		case key == "PATH":
			c.path = value
		}
		c.assigns = append(c.assigns, word)
	}
	return false, nil
}

// plainWords reports whether a shell would take the words as they are.
func plainWords(words []string) bool {
	return len(words) > 0 && !slices.ContainsFunc(words, func(word string) bool { return strings.ContainsAny(word, "$'\"\\*?~{}[]#=") })
}

// starts makes sure that the program is there which the present one starts, and goes on to it.
func (c *command) starts(how, name string, argv []string) (more bool, err error) {
	file := name
	switch {
	case strings.Contains(name, "/"):
		if !filepath.IsAbs(name) {
			return false, nil // from the working directory, or from where a program goes
		}
		if _, err := os.Stat(name); errors.Is(err, fs.ErrNotExist) || err == nil && !program.IsExecutable(name) {
			what := "which does not exist"
			if err == nil {
				what = "which is not executable"
			}
			return false, fault.Input(c.instead(argv), "%s %s %q, %s", c.subject, how, name, what)
		}
	case c.path == "":
		return false, nil
	default:
		if file = program.Search(name, c.path, "/"); file == "" {
			return false, fault.Input(c.retype(`"$(command -v `+app.ShellWord(name)+`)" `+c.rest(argv)),
				"%s %s %q, which is not in a unit's PATH (%s)", c.subject, how, name, c.path)
		}
	}
	c.subject, c.given = strconv.Quote(file), file
	c.argv = append([]string{file}, argv[1:]...)
	return true, nil
}

// instead is what to type if the first word of argv does not exist: with the program of that name
// which does, if there is one.
func (c *command) instead(argv []string) string {
	name := path.Base(argv[0])
	return c.retype(cmp.Or(program.Search(name, program.UnitPath, "/"), "INTERPRETER") + " " + c.rest(argv))
}

// rest is the words behind the first, with the command's program as the user wrote it.
func (c *command) rest(argv []string) string {
	words := slices.Clone(argv[1:])
	for i, word := range words {
		if word == c.argv[0] {
			words[i] = c.given
		}
	}
	return app.ShellWords(words)
}

// loader makes sure that the dynamic loader of an ELF file is there: it is another one on systems
// with another C library.
func (c *command) loader(file string) error {
	f, err := regular.Open(file)
	if err != nil {
		return nil
	}
	defer f.Close()
	image, err := elf.NewFile(f)
	if err != nil {
		return nil
	}
	for _, p := range image.Progs {
		if p.Type != elf.PT_INTERP {
			continue
		}
		text, _ := io.ReadAll(io.LimitReader(p.Open(), app.MaxFile))
		name := strings.TrimRight(string(text), "\x00")
		if _, err := os.Stat(name); errors.Is(err, fs.ErrNotExist) {
			return fault.Input("ldd "+app.ShellWord(c.given), "%s needs the dynamic loader %q, which does not exist", c.subject, name)
		}
	}
	return nil
}
