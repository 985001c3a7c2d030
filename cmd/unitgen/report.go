package main

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"strings"
	"unicode"

	"github.com/unitgen/unitgen/internal/app"
	"golang.org/x/sys/unix"
)

// fault is something that the system could not do. hint is one line to paste; it may be empty.
type fault struct {
	err  error
	hint string
}

func (f *fault) Error() string { return f.err.Error() }
func (f *fault) Unwrap() error { return f.err }

// inputf is an error of the user's.
func inputf(hint, format string, args ...any) error {
	return &app.InputError{Msg: fmt.Sprintf(format, args...), Hint: hint}
}

// report prints err, one line for each of its parts and at most one hint, and returns the exit status: 2 if all of it is
// the user's to mend, else 1.
func report(w io.Writer, err error) int {
	status, hint := exitInvalidArgument, ""
	for _, part := range parts(err) {
		fmt.Fprintf(w, "unitgen: %s\n", printable(strings.ReplaceAll(part.Error(), "\n", "; ")))
		var input *app.InputError
		var f *fault
		switch {
		case errors.As(part, &f): // may wrap an InputError: what an option says of a text in a file
			status, hint = exitFailure, firstOf(hint, f.hint)
		case errors.As(part, &input):
			hint = firstOf(hint, input.Hint)
		default:
			status = exitFailure
		}
	}
	if hint != "" {
		fmt.Fprintf(w, "unitgen: hint: %s\n", printable(hint))
	}
	return status
}

// printable keeps what others named, such as a file or a program's last line, from acting on the terminal or from looking like a
// line of ours.
func printable(text string) string {
	var b strings.Builder
	for _, r := range text {
		if r == '\t' || unicode.IsPrint(r) {
			b.WriteRune(r)
			continue
		}
		fmt.Fprintf(&b, "\\x%02x", r)
	}
	return b.String()
}

// parts takes errors.Join apart, and drops what is said twice. It returns nothing for nil.
func parts(err error) []error {
	var found []error
	seen := make(map[string]bool)
	var walk func(error)
	walk = func(err error) {
		if err == nil {
			return
		}
		if joined, ok := err.(interface{ Unwrap() []error }); ok {
			for _, sub := range joined.Unwrap() {
				walk(sub)
			}
			return
		}
		if err != nil && !seen[err.Error()] {
			seen[err.Error()] = true
			found = append(found, err)
		}
	}
	walk(err)
	return found
}

func firstOf(a, b string) string {
	if a != "" {
		return a
	}
	return b
}

// writeFault explains a failed write: what can be done about it depends on why.
func writeFault(err error) error {
	switch {
	case errors.Is(err, fs.ErrPermission):
		return &fault{err, "run it as root (sudo), or write units of your own with --user-units"}
	case errors.Is(err, unix.EROFS):
		return &fault{err, "the file system is read-only; --output=DIR writes the units elsewhere"}
	case errors.Is(err, unix.ENOSPC), errors.Is(err, unix.EDQUOT):
		return &fault{err, "nothing was changed; make room and run it again"}
	}
	return err
}
