package imports

import (
	"errors"
	"strings"

	"github.com/unitgen/unitgen/internal/app"
)

// errQuotes is the error of splitWords for a quote without an end.
var errQuotes = errors.New("a quote has no end")

// splitWords splits a command line as sh(1) does, without expansions. plain is false if a shell
// would do more: variables, patterns, redirections, several commands.
func splitWords(line string) (words []string, plain bool, err error) {
	plain = true
	var b strings.Builder
	open, quote := false, byte(0)
	for i := 0; i < len(line); i++ {
		c := line[i]
		switch {
		case quote == '\'' && c != '\'', quote == '"' && c != '"' && c != '\\' && c != '$' && c != '`':
			b.WriteByte(c)
		case quote != 0 && c == quote:
			quote = 0
		case c == '\\' && i+1 < len(line):
			i++
			if quote == '"' && !strings.ContainsRune("\"\\$`", rune(line[i])) {
				b.WriteByte('\\')
			}
			b.WriteByte(line[i])
			open = true
		case quote == 0 && (c == '\'' || c == '"'):
			quote, open = c, true
		case quote == 0 && (c == ' ' || c == '\t' || c == '\n'):
			plain = plain && c != '\n'
			if open {
				words = append(words, b.String())
				b.Reset()
				open = false
			}
		default:
			special := "$`|&;<>()*?[\\"
			if !open {
				special += "#~"
			}
			if strings.IndexByte(special, c) >= 0 {
				plain = false
			}
			b.WriteByte(c)
			open = true
		}
	}
	if quote != 0 {
		return nil, false, errQuotes
	}
	if open {
		words = append(words, b.String())
	}
	return words, plain, nil
}

// shellKeyword reports whether the first word of a command line is a word of the shell and no
// program.
func shellKeyword(word string) bool {
	switch word {
	case "cd", "source", ".", "export", "set", "eval", "if", "for", "while", "case", "until", "{", "!", "ulimit", "umask", "trap", "unset":
		return true
	}
	return false
}

// shell returns the argv that runs text in a shell. Where possible, the shell becomes the program,
// so that PID 1 signals the program.
func shell(program, text string) []string {
	if words, _, err := splitWords(text); err == nil && len(words) > 0 && !strings.ContainsAny(text, "|&;<>()\n`") &&
		!shellKeyword(words[0]) && words[0] != "exec" && !isAssignment(words[0]) {
		text = "exec " + text
	}
	return []string{program, "-c", text}
}

func isAssignment(word string) bool {
	key, _, ok := strings.Cut(word, "=")
	return ok && app.IsVariable(key)
}

// commandLine returns the argv of a line that its manager gives to a shell: its words, if they need
// no shell. Assignments before the program are returned separately.
func commandLine(line string) (assignments, argv []string, err error) {
	line = strings.TrimSpace(line)
	words, plain, err := splitWords(line)
	if err != nil || len(words) == 0 {
		return nil, nil, err
	}
	if !plain || shellKeyword(words[0]) {
		return nil, shell("/bin/sh", line), nil
	}
	for len(words) > 0 && isAssignment(words[0]) {
		assignments, words = append(assignments, words[0]), words[1:]
	}
	if len(words) > 1 && words[0] == "exec" {
		words = words[1:]
	}
	return assignments, words, nil
}
