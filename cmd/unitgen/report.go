package main

import (
	"fmt"
	"io"
	"strings"
	"unicode"

	"github.com/unitgen/unitgen/internal/app"
	"github.com/unitgen/unitgen/internal/fault"
)

// inputf is an error of the user's.
func inputf(hint, format string, args ...any) error {
	return fault.Input(hint, format, args...)
}

// report prints err, one line for each of its parts and at most one hint, and returns the exit status: 2 if all of it is
// the user's to mend, else 1.
func report(w io.Writer, err error) int {
	status, hint := exitInvalidArgument, ""
	for _, part := range app.Parts(err) {
		fmt.Fprintf(w, "unitgen: %s\n", printable(strings.ReplaceAll(part.Error(), "\n", "; ")))
		hint = firstOf(hint, fault.Hint(part))
		if !fault.IsInput(part) {
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

func firstOf(a, b string) string {
	if a != "" {
		return a
	}
	return b
}
