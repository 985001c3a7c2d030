package imports

import (
	"errors"
	"io/fs"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"

	"github.com/unitgen/unitgen/internal/app"
	"github.com/unitgen/unitgen/internal/fault"
)

// procfileLine is one type of process: its name and its command.
var procfileLine = regexp.MustCompile(`^([A-Za-z0-9_-]+):\s*(.+)$`)

// The ports of foreman: the first type of process gets the base, each further one a hundred more.
// PORT in .env is another base.
const (
	procfileBase = 5000
	procfileStep = 100
)

// procfile reads a Procfile, and the .env beside it. The .env is the environment of all processes.
func (s *source) procfile() error {
	content, err := s.text()
	if err != nil {
		return err
	}
	variables, err := s.dotenv()
	if err != nil {
		return err
	}
	base := procfileBase
	for _, v := range variables {
		if n, err := strconv.Atoi(v.Value); v.Key == "PORT" && err == nil {
			base = n
		}
	}
	index := 0
	for i, line := range strings.Split(content, "\n") {
		line = strings.TrimSpace(line)
		if line == "" || line[0] == '#' {
			continue
		}
		m := procfileLine.FindStringSubmatch(line)
		if m == nil {
			s.fail(i+1, "", "a line must be NAME: COMMAND, got %q", short(line))
			continue
		}
		if index >= maxApps {
			s.fail(i+1, "", "there are more than %d processes", maxApps)
			break
		}
		s.process(m[1], m[2], i+1, base+procfileStep*index, variables)
		index++
	}
	if index == 0 && len(s.errs) == 0 {
		s.fail(0, "", "there is no process in it: a line is NAME: COMMAND")
	}
	return errors.Join(s.errs...)
}

// process reads one type of process. Its program learns the port from $PORT.
func (s *source) process(name, command string, line, port int, variables []app.Assignment) {
	a := s.add(name, name, line)
	a.set(name, line, "WorkingDirectory", s.dir())
	if name != "web" && !strings.Contains(command, "PORT") && !s.named(a.Name) {
		a.Skip = "it serves no port that anybody knows of, and unitgen balances servers; to import it all the same: unitgen import " + app.ShellWord(s.Shown) + " " + name
		a.note(name, line, a.Skip)
		return
	}
	text := strings.ReplaceAll(portWord.ReplaceAllString(command, "$${PORT}$1"), "${PORT}", strconv.Itoa(port))
	assignments, argv, err := commandLine(text)
	if err != nil || len(argv) == 0 {
		s.fail(line, "", "the command of %s cannot be taken apart: %v", name, err)
		return
	}
	if strings.Contains(argv[0], "/") {
		argv[0] = joinPath(s.dir(), argv[0])
	}
	a.set(name, line, "Command", argv...)
	if arg := secretArgument(argv); arg != "" {
		a.note(name, line, "everybody can read "+arg+" in the unit, as in the list of processes")
	}
	a.listen(name, line, strconv.Itoa(port))
	a.env(name, line, "PORT", strconv.Itoa(port), false)
	for _, v := range variables {
		if v.Key != "PORT" {
			a.env(".env", 0, v.Key, v.Value, true)
		}
	}
	for _, assignment := range assignments {
		key, value, _ := strings.Cut(assignment, "=")
		a.env(name, line, key, value, false)
	}
}

// portWord matches $PORT where no longer name begins with it.
var portWord = regexp.MustCompile(`\$PORT([^A-Za-z0-9_]|$)`)

// dotenv reads the .env beside the source. Without a file there are no variables.
func (s *source) dotenv() ([]app.Assignment, error) {
	shown := filepath.Join(filepath.Dir(s.Shown), ".env")
	text, err := s.readText(filepath.Join(s.dir(), ".env"), shown)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	} else if err != nil {
		return nil, s.fault(shown, 0, "", "it cannot be read: %v", fault.WithoutPath(err))
	}
	variables, err := parseDotenv(text)
	if at, ok := errors.AsType[*lineError](err); ok {
		return nil, s.fault(shown, at.line, "", "%s", at.msg)
	}
	return variables, err
}

// parseDotenv reads the assignments of a .env file: KEY=VALUE, with or without "export". A value in
// single quotes is literal. In double quotes \n is a line break. Without quotes " #" begins a
// comment. Values in quotes may have several lines. Nothing is expanded. Errors do not contain
// values of the file.
func parseDotenv(text string) ([]app.Assignment, error) {
	var found []app.Assignment
	lines := strings.Split(strings.TrimPrefix(text, "\ufeff"), "\n")
	for i := 0; i < len(lines); i++ {
		line := strings.TrimSpace(lines[i])
		if line == "" || line[0] == '#' {
			continue
		}
		key, value, ok := strings.Cut(strings.TrimSpace(strings.TrimPrefix(line, "export ")), "=")
		key = strings.TrimSpace(key)
		if !ok || !app.IsVariable(key) {
			return nil, &lineError{i + 1, "a line must be KEY=VALUE"}
		}
		value = strings.TrimSpace(value)
		if value == "" || value[0] != '"' && value[0] != '\'' && value[0] != '`' {
			if value, _, _ = strings.Cut(value, " #"); strings.HasPrefix(value, "#") {
				value = ""
			}
			found = append(found, app.Assignment{Key: key, Value: strings.TrimSpace(value)})
			continue
		}
		begin, quote := i, value[0]
		value = value[1:]
		end := closing(value, quote)
		for end < 0 {
			if i++; i == len(lines) {
				return nil, &lineError{begin + 1, "the quote of " + key + " has no end"}
			}
			value += "\n" + strings.TrimSuffix(lines[i], "\r")
			end = closing(value, quote)
		}
		if rest := strings.TrimSpace(value[end+1:]); rest != "" && rest[0] != '#' {
			return nil, &lineError{i + 1, "something follows the value of " + key}
		}
		if value = value[:end]; quote == '"' {
			value = strings.NewReplacer(`\\`, `\`, `\n`, "\n", `\r`, "\r", `\t`, "\t", `\"`, `"`, `\$`, "$").Replace(value)
		}
		found = append(found, app.Assignment{Key: key, Value: value})
	}
	return found, nil
}

// closing returns where the quote that begins a value ends; -1 if it does not end.
func closing(s string, quote byte) int {
	for i := 0; i < len(s); i++ {
		switch {
		case quote == '"' && s[i] == '\\':
			i++
		case s[i] == quote:
			return i
		}
	}
	return -1
}
