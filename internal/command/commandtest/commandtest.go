// Package commandtest runs the programs of the shim in-process, for their tests.
package commandtest

import (
	"bytes"
	"log/slog"
	"strings"
	"testing"

	"github.com/unitgen/unitgen/internal/command"
	"github.com/unitgen/unitgen/internal/sdlog"
)

// Run runs a program that has verbs, without an environment. It returns the exit status and what was
// written.
func Run(t *testing.T, verbs []command.Verb, args ...string) (status int, stdout, stderr string) {
	t.Helper()
	var out, errOut bytes.Buffer
	e := &command.Env{Args: args, Getenv: func(string) string { return "" }, Stdout: &out, Stderr: &errOut}
	e.Log = slog.New(sdlog.NewStream("lbshim", &errOut, slog.LevelInfo))
	status = command.Run(t.Context(), e, "test", verbs)
	return status, out.String(), errOut.String()
}

// Refuses checks that each command line is refused, as bad input, with one line.
func Refuses(t *testing.T, verbs []command.Verb, lines map[string]string) {
	t.Helper()
	for args, want := range lines {
		status, stdout, stderr := Run(t, verbs, strings.Fields(args)...)
		if want = "lbshim: " + want + "\n"; status != command.ExitInvalidArgument || stderr != want || stdout != "" {
			t.Errorf("%q: exit status %d, %q, want %d, %q", args, status, stderr, command.ExitInvalidArgument, want)
		}
	}
}
