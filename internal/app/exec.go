package app

import (
	"fmt"
	"path"
	"strings"
	"unicode"
	"unicode/utf8"
)

// Limits of execve(2) that PID 1 would only meet when it starts the instance.
const (
	maxArgument = 128<<10 - 1 // bytes of one argument or assignment without the final NUL (MAX_ARG_STRLEN)
	maxPath     = 4095        // PATH_MAX without the final NUL

	// All arguments with their pointers: a quarter of the default stack of 8 MiB, less room for the
	// environment.
	maxArguments = 2<<20 - 256<<10
)

// ExecLine writes argv as the value of ExecStart= (systemd.service(5), "Command lines"), so that
// PID 1 executes exactly argv: no specifier and no variable is expanded. argv[0] must be an
// absolute, clean path. The errors are InputErrors.
func ExecLine(argv []string) (string, error) {
	if err := checkCommand(argv); err != nil {
		return "", err
	}
	var b strings.Builder
	expand := specifiersAndVariables
	if strings.Contains(argv[0], "$") {
		// PID 1 expands variables in argv[0] but not in the path that it executes, so no text of
		// "$" serves both. ":" turns the expansion off for the whole line.
		b.WriteByte(':')
		expand = specifiersOnly
	}
	for i, word := range argv {
		if i > 0 {
			b.WriteByte(' ')
		}
		b.WriteString(QuoteWord(expand(word)))
	}
	if n := b.Len(); n > MaxLine-len("ExecStart=\n") {
		return "", inputErrorf("", "the command line takes %d bytes in a unit file, but systemd reads at most %d", n, MaxLine)
	}
	return b.String(), nil
}

// ExecWords writes argv as words that follow others in a command line: no specifier and no variable
// in them is expanded. argv must be acceptable to ExecLine.
func ExecWords(argv []string) string {
	words := make([]string, len(argv))
	for i, word := range argv {
		words[i] = QuoteWord(specifiersAndVariables(word))
	}
	return strings.Join(words, " ")
}

func specifiersOnly(s string) string { return strings.ReplaceAll(s, "%", "%%") }

func specifiersAndVariables(s string) string {
	return strings.ReplaceAll(strings.ReplaceAll(s, "%", "%%"), "$", "$$")
}

// QuoteAssignment writes a as the value of Environment= (systemd.exec(5)): PID 1 passes on exactly
// KEY=VALUE. Variables are not expanded there, so "$" stays as it is.
func QuoteAssignment(a Assignment) string { return QuoteWord(specifiersOnly(a.Key + "=" + a.Value)) }

// RawPath writes an absolute path for settings that take the rest of the line unchanged, such as
// WorkingDirectory=. It adds a final slash, which PID 1 drops, so that a blank at the end is not
// cut off and a backslash does not continue the line.
func RawPath(p string) string {
	if strings.HasSuffix(p, " ") || strings.HasSuffix(p, "\t") || strings.HasSuffix(p, `\`) {
		p += "/"
	}
	return specifiersOnly(p)
}

// RawWord writes a name for the settings that take the rest of the line as it stands; PID 1 cuts
// blanks off its ends.
func RawWord(s string) string {
	return specifiersOnly(strings.Map(func(r rune) rune {
		if r == '\\' || !unicode.IsPrint(r) {
			return '-'
		}
		return r
	}, s))
}

// RawPattern is RawPath for EnvironmentFile=, where a path is a pattern of glob(3): it matches just
// the path.
func RawPattern(p string) string {
	return RawPath(strings.NewReplacer(`\`, `\\`, "*", `\*`, "?", `\?`, "[", `\[`).Replace(p))
}

// rawPathProblem says why p cannot be written by RawPath; empty if it can.
func rawPathProblem(p string) string {
	switch {
	case !strings.HasPrefix(p, "/"):
		return "must be an absolute path"
	case len(p) > maxPath:
		return fmt.Sprintf("must have at most %d bytes", maxPath)
	case path.Clean(p) != p:
		return "must be written without \"//\", \".\", \"..\" and final \"/\""
	}
	return rawLineProblem(p)
}

// rawLineProblem says why s cannot stand in a unit file without quotes; empty if it can. Tried on
// 252 and 257: PID 1 ends a line at "\r" and NUL too, and ignores a line that is not UTF-8.
func rawLineProblem(s string) string {
	switch {
	case strings.ContainsAny(s, "\n\r\x00"):
		return "must not contain a line break or NUL"
	case !isText(s):
		return "must be valid UTF-8"
	}
	return ""
}

// checkCommand says what PID 1 or execve(2) would refuse of argv.
func checkCommand(argv []string) error {
	if len(argv) == 0 {
		return inputErrorf("", "the command is missing")
	}
	var found inputErrors
	found.add(checkProgram(argv[0]))
	size := 0
	for i, arg := range argv {
		size += len(arg) + 1 + 8
		if strings.IndexByte(arg, 0) >= 0 {
			found.addf("", "argument %d of the command must not contain NUL", i)
		}
		if len(arg) > maxArgument {
			found.addf("", "argument %d of the command must have at most %d bytes, got %d", i, maxArgument, len(arg))
		}
	}
	if size > maxArguments {
		found.addf("", "the command must have at most %d bytes, 8 for each argument included, got %d", maxArguments, size)
	}
	return found.err()
}

// checkProgram refuses paths that PID 1 does not execute as given. Tried with every byte on 252 and
// 257: control characters, quotes and backslashes are "special characters" (string_is_safe() in
// src/basic/string-util.c). 257 passes the path to systemd-executor as a line of text and loses a
// blank at its end.
func checkProgram(p string) error {
	link := "ln -s " + ShellWord(p) + " /usr/local/bin/"
	switch {
	case !strings.HasPrefix(p, "/"):
		return inputErrorf("", "the program must be an absolute path, got %q", p)
	case len(p) > maxPath:
		return inputErrorf("", "the program's path must have at most %d bytes, got %d", maxPath, len(p))
	case path.Clean(p) != p:
		return inputErrorf(ShellWord(path.Clean(p)), "the program's path must be written without \"//\", \".\", \"..\" and final \"/\", got %q", p)
	case strings.ContainsFunc(p, func(r rune) bool { return r < ' ' || r == 0x7f || strings.ContainsRune("\"'\\", r) }):
		return inputErrorf(link, "the program's path must not contain quotes, backslashes or control characters, which systemd refuses: %q", p)
	case strings.HasSuffix(p, " "):
		return inputErrorf(link, "the program's path must not end in a blank, which systemd cuts off: %q", p)
	}
	return nil
}

// ShellWords writes argv as a shell's command line.
func ShellWords(argv []string) string {
	words := make([]string, len(argv))
	for i, word := range argv {
		words[i] = ShellWord(word)
	}
	return strings.Join(words, " ")
}

// ShellWord writes s as one word of a shell's command line, for hints: bare if possible, otherwise
// in quotes, and with escapes ($'…') if it contains characters that a terminal would act on.
func ShellWord(s string) string {
	switch {
	case s != "" && !strings.ContainsFunc(s, func(r rune) bool { return !nameRune(r) && !strings.ContainsRune("/=+,@%", r) }):
		return s
	case strings.ContainsFunc(s, func(r rune) bool { return !unicode.IsPrint(r) || r == utf8.RuneError }):
		var b strings.Builder
		for i := 0; i < len(s); i++ {
			if c := s[i]; c < ' ' || c >= 0x7f || c == '\'' || c == '\\' {
				fmt.Fprintf(&b, `\x%02x`, c)
			} else {
				b.WriteByte(c)
			}
		}
		return "$'" + b.String() + "'"
	}
	return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'"
}
