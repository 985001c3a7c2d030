package main

import (
	"cmp"
	"fmt"
	"io"
	"strings"

	"github.com/unitgen/unitgen/internal/app"
	"github.com/unitgen/unitgen/internal/fault"
)

// inputf returns an error that the user can correct.
func inputf(hint, format string, args ...any) error {
	return fault.Input(hint, format, args...)
}

// report prints err, a line for each of its parts and at most one hint. It returns the exit status:
// 2 if the user can correct all parts, else 1.
func report(w io.Writer, err error) int {
	status, hint := exitInvalidArgument, ""
	for _, part := range app.Parts(err) {
		fmt.Fprintf(w, "unitgen: %s\n", fault.Printable(strings.ReplaceAll(part.Error(), "\n", "; ")))
		hint = cmp.Or(hint, fault.Hint(part))
		if !fault.IsInput(part) {
			status = exitFailure
		}
	}
	if hint != "" {
		fmt.Fprintf(w, "unitgen: hint: %s\n", fault.Printable(hint))
	}
	return status
}
