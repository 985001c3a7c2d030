package explain

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/unitgen/unitgen/internal/app"
	"github.com/unitgen/unitgen/internal/program"
)

// notStarted explains a run in which PID 1 could not make a process the program.
func (c *caseFile) notStarted(_ context.Context, in *invocation) Reason {
	for _, line := range in.pid1 {
		if strings.Contains(line, "load environment files") {
			return c.environmentFile()
		}
	}
	status, _ := strconv.Atoi(in.exitStatus)
	step, known := steps[status]
	if !known || !in.spawnFailed && in.exitCode != "exited" {
		return Reason{}
	}
	if !in.spawnFailed && len(in.said) > 0 {
		return Reason{} // a program may end with such a status of its own
	}
	switch status {
	case 200:
		return c.chdir()
	case 203:
		return c.exec(in)
	case 217:
		return Reason{What: fmt.Sprintf("there is no user %q", c.set.user), Hint: c.options("--user=NAME")}
	}
	why := errnoText(in.errno)
	for _, line := range in.pid1 {
		// What stands before "Failed at step" has the path.
		if !strings.HasPrefix(line, "Failed at step") {
			// Before version 254 PID 1 says where it mounts the file system of the unit.
			why = strings.ReplaceAll(line, "/run/systemd/unit-root/", "/")
			break
		}
	}
	r := Reason{What: fmt.Sprintf("systemd could not %s: %s", step.what, why)}
	if path := c.pathIn(why); status == 226 && path != "" {
		r.What = fmt.Sprintf("%s does not exist, and a setting of the sandbox names it", path)
		r.Hint = "mkdir -p " + app.ShellWord(path)
	}
	return r
}

func (c *caseFile) environmentFile() Reason {
	for _, file := range c.set.environmentFiles {
		if _, err := os.Stat(file); err != nil {
			return Reason{What: fmt.Sprintf("the file of --env-file=%s %s", file, unreadable(err)),
				Hint: c.options("--env-file=-%s", app.ShellWord(file))}
		}
	}
	return Reason{What: "a file of --env-file= cannot be read", Hint: c.options("--env-file=PATH")}
}

func (c *caseFile) chdir() Reason {
	dir := c.set.workingDirectory
	if c.set.protectHome && isHome(dir) {
		return c.hiddenHome("the working directory "+dir, dir)
	}
	st, err := os.Stat(dir)
	switch {
	case err == nil && !st.IsDir():
		return Reason{What: fmt.Sprintf("the working directory %s is not a directory", dir), Hint: c.options("--working-directory=DIR")}
	case err == nil:
		return c.denied(dir, "enter the working directory")
	}
	return Reason{What: fmt.Sprintf("the working directory %s %s", dir, unreadable(err)), Hint: c.options("--working-directory=DIR")}
}

// exec explains 203/EXEC.
func (c *caseFile) exec(in *invocation) Reason {
	program := in.executable
	if program == "" && len(c.set.app.Command) > 0 {
		program = c.set.app.Command[0] // which lbshim executes
	}
	switch errno := unix.Errno(in.errno); {
	case errno == unix.ENOEXEC:
		return Reason{What: fmt.Sprintf("%s is no program for this machine: %s", program, describeFormat(program)), Hint: c.options("-- COMMAND ...")}
	case errno == unix.ENOENT, errno == 0 && isMissing(program):
		return c.execMissing(program)
	case errno == unix.EACCES:
		if c.set.protectHome && isHome(program) {
			return c.hiddenHome("the program "+program, program)
		}
		if st, err := os.Stat(program); err == nil && st.Mode()&0o111 == 0 {
			return Reason{What: program + " is not executable", Hint: "chmod +x " + app.ShellWord(program)}
		}
		if interpreter := interpreterOf(program); interpreter != "" {
			if st, err := os.Stat(interpreter); err == nil && st.Mode()&0o111 == 0 {
				return Reason{What: fmt.Sprintf("%s is a script for %s, which is not executable", program, interpreter), Hint: "chmod +x " + app.ShellWord(interpreter)}
			}
		}
		return c.denied(program, "execute")
	}
	return Reason{What: fmt.Sprintf("systemd could not execute %s: %s", program, errnoText(in.errno)), Hint: c.options("-- COMMAND ...")}
}

// isMissing reports whether a program or its interpreter does not exist. It is for users who may not
// sync the journal: the line with the errno may not be there yet.
func isMissing(program string) bool {
	missing := func(path string) bool { _, err := os.Stat(path); return errors.Is(err, fs.ErrNotExist) }
	interpreter := interpreterOf(program)
	return missing(program) || interpreter != "" && missing(interpreter)
}

func (c *caseFile) execMissing(program string) Reason {
	if _, err := os.Stat(program); err != nil {
		return Reason{What: fmt.Sprintf("the program %s does not exist", program), Hint: c.options("-- COMMAND ...")}
	}
	if c.set.protectHome && isHome(program) {
		return c.hiddenHome("the program "+program, program)
	}
	if c.set.privateTmp && (below(program, "/tmp") || below(program, "/var/tmp")) {
		return c.hiddenTmp(program)
	}
	interpreter := interpreterOf(program)
	switch {
	case strings.HasSuffix(interpreter, "\r"):
		return Reason{What: fmt.Sprintf("the first line of %s ends with CR LF, as on Windows, so its interpreter is not found", program),
			Hint: `sed -i 's/\r$//' ` + app.ShellWord(program)}
	case interpreter != "":
		return Reason{What: fmt.Sprintf("%s is a script for %s, which does not exist", program, printable(interpreter)),
			Hint: c.options("-- INTERPRETER %s ...", app.ShellWord(program))}
	}
	return Reason{What: fmt.Sprintf("the dynamic loader that %s needs does not exist", program), Hint: "ldd " + app.ShellWord(program)}
}

// interpreterOf is the first word behind "#!"; empty for other files.
func interpreterOf(file string) string {
	words, crlf := program.Script(file)
	switch {
	case len(words) == 0:
		return ""
	case len(words) == 1 && crlf:
		return words[0] + "\r" // for which the kernel looks
	}
	return words[0]
}

// headBytes is BINPRM_BUF_SIZE: the kernel looks at no more.
const headBytes = 256

func readHead(path string) []byte {
	// O_NONBLOCK: the file may be a pipe by now.
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil
	}
	defer f.Close()
	head, _ := io.ReadAll(bufio.NewReader(io.LimitReader(f, headBytes)))
	return head
}

// describeFormat says what a file is that the kernel does not execute.
func describeFormat(path string) string {
	head := readHead(path)
	switch {
	case len(head) == 0:
		return "it is empty"
	case bytes.HasPrefix(head, []byte("\x7fELF")):
		return "it was built for another processor"
	case bytes.HasPrefix(head, []byte("MZ")):
		return "it was built for Windows"
	case bytes.HasPrefix(head, []byte{0xfe, 0xed, 0xfa}), bytes.HasPrefix(head, []byte{0xcf, 0xfa, 0xed, 0xfe}):
		return "it was built for macOS"
	case bytes.HasPrefix(head, []byte("\xef\xbb\xbf#!")):
		return "there is a byte order mark before its \"#!\""
	}
	return "its first line is not \"#!\" and an interpreter"
}

func isHome(path string) bool {
	return below(path, "/home") || below(path, "/root") || below(path, "/run/user")
}

func below(path, dir string) bool {
	return path == dir || strings.HasPrefix(path, dir+"/")
}

// unreadable describes the fault of a file that os.Stat refused.
func unreadable(err error) string {
	if errors.Is(err, fs.ErrNotExist) {
		return "does not exist"
	}
	return "cannot be used: " + cause1(err)
}

// cause1 is the system's word in an error of package os.
func cause1(err error) string {
	for {
		inner, ok := err.(interface{ Unwrap() error })
		if !ok || inner.Unwrap() == nil {
			return err.Error()
		}
		err = inner.Unwrap()
	}
}

// program is the command's path, for hints.
func (c *caseFile) script() string {
	for _, word := range c.set.app.Command {
		if filepath.IsAbs(word) {
			if st, err := os.Stat(word); err == nil && st.Mode().IsRegular() && !below(word, "/usr") {
				return word
			}
		}
	}
	return ""
}
