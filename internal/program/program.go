// Package program says what a command line really runs: behind env(1), behind starters such as
// nice(1), in a simple command of a shell, and behind the first line of a script. It goes by names,
// and by the first 256 bytes of the program's file.
//
// It is not for safety: a program may be called what it likes. A wrong answer costs a line of the
// sandbox, or a hint.
package program

import (
	"bufio"
	"io"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"github.com/unitgen/unitgen/internal/regular"
)

// UnitPath is where PID 1 and env(1) look for programs in a unit (DEFAULT_PATH in systemd's
// basic/path-util.h).
const UnitPath = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

// Search looks for a program in the directories of a $PATH, as execvp(3) does; empty if it is in
// none.
func Search(program, searchPath, cwd string) string {
	for _, dir := range filepath.SplitList(searchPath) {
		if !filepath.IsAbs(dir) {
			dir = filepath.Join(cwd, dir)
		}
		if file := filepath.Join(dir, program); IsExecutable(file) {
			return file
		}
	}
	return ""
}

// IsExecutable says whether a file is a regular one that somebody may execute.
func IsExecutable(file string) bool {
	st, err := os.Stat(file)
	return err == nil && st.Mode().IsRegular() && st.Mode()&0o111 != 0
}

// Name is what a program is called without a directory and a version: node of /opt/node22, python
// of python3.11.
func Name(program string) string { return strings.TrimRight(path.Base(program), "0123456789.-") }

// headBytes is BINPRM_BUF_SIZE: the kernel looks at no more of a file.
const headBytes = 256

// Script returns the words of a script's first line behind "#!" (execve(2)), the interpreter first,
// and whether that line ends as on Windows, with which the last word does not exist. Other files,
// and those that cannot be read, have none.
func Script(file string) (words []string, crlf bool) {
	f, err := regular.Open(file)
	if err != nil {
		return nil, false
	}
	defer f.Close()
	line, _ := bufio.NewReader(io.LimitReader(f, headBytes)).ReadString('\n')
	line, script := strings.CutPrefix(line, "#!")
	if !script {
		return nil, false
	}
	return strings.Fields(line), strings.HasSuffix(line, "\r\n")
}

// Behind is argv without env(1), its options and its assignments; argv itself if it does not begin
// with env.
func Behind(argv []string) []string {
	if len(argv) == 0 || path.Base(argv[0]) != "env" {
		return argv
	}
	i := slices.IndexFunc(argv[1:], func(word string) bool { return !strings.HasPrefix(word, "-") && !strings.Contains(word, "=") })
	if i < 0 {
		return nil
	}
	return argv[1+i:]
}

// Replaced is what the process that argv starts becomes: without env(1), and without a shell that
// does nothing but "exec PROGRAM ARGUMENT...". Quotes in such a command stay in the words.
func Replaced(argv []string) []string {
	argv = Behind(argv)
	text, ok := shellText(argv)
	if !ok || strings.ContainsAny(text, ";&|()<>`\n") {
		return argv
	}
	words := strings.Fields(text)
	if len(words) < 2 || words[0] != "exec" || strings.HasPrefix(words[1], "-") {
		return argv
	}
	return Behind(words[1:])
}

// shells run what follows -c.
var shells = []string{"sh", "dash", "bash", "ash", "zsh", "ksh", "busybox"}

// shellText is what a shell's -c runs.
func shellText(argv []string) (text string, ok bool) {
	if len(argv) == 0 || !slices.Contains(shells, path.Base(argv[0])) {
		return "", false
	}
	words := argv[1:]
	at := slices.IndexFunc(words, func(word string) bool {
		return strings.HasSuffix(word, "c") && strings.HasPrefix(word, "-") && !strings.HasPrefix(word, "--")
	})
	if at < 0 || at+1 >= len(words) {
		return "", false
	}
	return words[at+1], true
}

// Server is the name of the server that argv runs: also of a module of Python's, as in "python3 -m
// gunicorn".
func Server(argv []string) string {
	argv = Replaced(argv)
	switch {
	case len(argv) == 0:
		return ""
	case Name(argv[0]) == "python" && len(argv) > 2 && argv[1] == "-m":
		return argv[2]
	}
	return path.Base(argv[0])
}
