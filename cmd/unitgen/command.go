package main

import (
	"os"
	"path/filepath"
	"strings"

	"github.com/unitgen/unitgen/internal/app"
	"github.com/unitgen/unitgen/internal/program"
)

// resolve returns the absolute path of a program: as it is, from the current directory, or from $PATH. It must be an
// executable file, and the interpreter of a script must be there: else the first thing the user sees is an instance that
// restarts. For packages, programs need not be installed where the units are written.
func (c *command) resolve(name string) (string, error) {
	if name == "" {
		return "", inputf("", "the command must not be empty")
	}
	if c.site.Packaging && filepath.IsAbs(name) {
		return name, nil
	}
	var path string
	if strings.Contains(name, "/") {
		if c.commandDir() == "" && !filepath.IsAbs(name) {
			return "", inputf("", "the current directory does not exist, so %q is nowhere", name)
		}
		path = join(c.commandDir(), name)
	} else if path = program.Search(name, c.env.getenv("PATH"), c.env.cwd); path == "" {
		hint := ""
		if program.IsExecutable(join(c.commandDir(), name)) {
			hint = "./" + name
		}
		return "", inputf(hint, "the command %q is not in $PATH", name)
	}
	return path, checkExecutable(name, path)
}

func checkExecutable(given, path string) error {
	st, err := os.Stat(path)
	switch {
	case os.IsNotExist(err):
		return inputf("", "the command %q does not exist", given)
	case err != nil:
		return inputf("", "the command %q cannot be used: %v", given, err)
	case st.IsDir():
		return inputf("", "the command %q is a directory", given)
	case !st.Mode().IsRegular():
		return inputf("", "the command %q is not a regular file", given)
	case st.Mode()&0o111 == 0:
		return inputf("chmod +x "+app.ShellWord(given), "the command %q is not executable", given)
	}
	return checkInterpreter(given, path)
}

// checkInterpreter follows the first line of a script, and env(1) behind it. A file that cannot be read is let pass: the
// kernel may execute it all the same.
func checkInterpreter(given, path string) error {
	words, crlf := program.Script(path)
	if len(words) == 0 {
		return nil
	}
	if crlf {
		return inputf("sed -i 's/\\r$//' "+app.ShellWord(given), "the command %q is a script with the line ends of Windows (CR LF), for which the kernel finds no interpreter", given)
	}
	if !program.IsExecutable(words[0]) {
		return inputf("", "the command %q is a script for %q, which does not exist", given, words[0])
	}
	behind := program.Behind(words)
	if len(behind) == 0 || strings.Contains(behind[0], "/") || program.Search(behind[0], program.UnitPath, "/") != "" {
		return nil
	}
	return inputf("unitgen app -- \"$(command -v "+app.ShellWord(behind[0])+")\" "+app.ShellWord(given),
		"the command %q is a script for %q, which is not in a unit's PATH (%s)", given, behind[0], program.UnitPath)
}
