package main

import (
	"bufio"
	"io"
	"os"
	"path/filepath"
	"strings"

	"github.com/unitgen/unitgen/internal/app"
	"github.com/unitgen/unitgen/internal/regular"
)

// unitPath is where PID 1 and env(1) look for programs in a unit (DEFAULT_PATH in systemd's basic/path-util.h).
const unitPath = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

// resolve returns the absolute path of a program: as it is, from the current directory, or from $PATH. It must be an
// executable file, and the interpreter of a script must be there: else the first thing the user sees is an instance that
// restarts. For packages, programs need not be installed where the units are written.
func (c *command) resolve(program string) (string, error) {
	if program == "" {
		return "", inputf("", "the command must not be empty")
	}
	if c.site.Packaging && filepath.IsAbs(program) {
		return program, nil
	}
	var path string
	if strings.Contains(program, "/") {
		if c.commandDir() == "" && !filepath.IsAbs(program) {
			return "", inputf("", "the current directory does not exist, so %q is nowhere", program)
		}
		path = join(c.commandDir(), program)
	} else if path = search(program, c.env.getenv("PATH"), c.env.cwd); path == "" {
		hint := ""
		if isExecutable(join(c.commandDir(), program)) {
			hint = "./" + program
		}
		return "", inputf(hint, "the command %q is not in $PATH", program)
	}
	return path, checkExecutable(program, path)
}

// search looks for program in the directories of path, as execvp(3) does.
func search(program, path, cwd string) string {
	for _, dir := range filepath.SplitList(path) {
		if !filepath.IsAbs(dir) {
			dir = filepath.Join(cwd, dir)
		}
		if file := filepath.Join(dir, program); isExecutable(file) {
			return file
		}
	}
	return ""
}

func isExecutable(file string) bool {
	st, err := os.Stat(file)
	return err == nil && st.Mode().IsRegular() && st.Mode()&0o111 != 0
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

// checkInterpreter follows the first line of a script, "#!interpreter [argument]" (execve(2)), and env(1) behind it. A
// file that cannot be read is let pass: the kernel may execute it all the same.
func checkInterpreter(given, path string) error {
	f, err := regular.Open(path)
	if err != nil {
		return nil
	}
	defer f.Close()
	line, _ := bufio.NewReader(io.LimitReader(f, 256)).ReadString('\n') // BINPRM_BUF_SIZE
	line, script := strings.CutPrefix(line, "#!")
	words := strings.Fields(line)
	if !script || len(words) == 0 {
		return nil
	}
	if strings.HasSuffix(line, "\r\n") {
		return inputf("sed -i 's/\\r$//' "+app.ShellWord(given), "the command %q is a script with the line ends of Windows (CR LF), for which the kernel finds no interpreter", given)
	}
	if !isExecutable(words[0]) {
		return inputf("", "the command %q is a script for %q, which does not exist", given, words[0])
	}
	if filepath.Base(words[0]) != "env" {
		return nil
	}
	for _, word := range words[1:] {
		if strings.HasPrefix(word, "-") || strings.Contains(word, "=") {
			continue
		}
		if !strings.Contains(word, "/") && search(word, unitPath, "/") == "" {
			return inputf("unitgen app -- \"$(command -v "+app.ShellWord(word)+")\" "+app.ShellWord(given),
				"the command %q is a script for %q, which is not in a unit's PATH (%s)", given, word, unitPath)
		}
		break
	}
	return nil
}
