package main

import (
	"bytes"
	"log/slog"
	"strings"
	"testing"

	"github.com/unitgen/unitgen/internal/command"
	"github.com/unitgen/unitgen/internal/sdlog"
)

// run runs the program in-process and returns its exit status and what it wrote.
func run(t *testing.T, args ...string) (status int, stdout, stderr string) {
	t.Helper()
	var out, errOut bytes.Buffer
	e := &command.Env{Args: args, Getenv: func(string) string { return "" }, Stdout: &out, Stderr: &errOut}
	e.Log = slog.New(sdlog.NewStream("lbshim", &errOut, slog.LevelInfo))
	status = command.Run(t.Context(), e, version, verbs())
	return status, out.String(), errOut.String()
}

func TestWithoutSocketsItSaysHowToStartIt(t *testing.T) {
	status, _, stderr := run(t, "serve", "app")
	if status != command.ExitNotConfigured {
		t.Errorf("exit status %d, want %d", status, command.ExitNotConfigured)
	}
	if !strings.Contains(stderr, "systemctl start app.service") || strings.Count(stderr, "\n") != 1 {
		t.Errorf("it says %q, want one line with the command that starts it", stderr)
	}
}

func TestBadInputIsOneSpecificLine(t *testing.T) {
	for args, want := range map[string]string{
		"":                           "lbshim: a verb is missing, try 'lbshim --help'\n",
		"balance app":                "lbshim: unknown verb \"balance\", try 'lbshim --help'\n",
		"serve":                      "lbshim: serve takes 1 operands, got 0, try 'lbshim --help'\n",
		"serve app --bogus":          "lbshim: unknown flag: --bogus, try 'lbshim --help'\n",
		"serve app --weights=1,,2":   "lbshim: invalid argument \"1,,2\" for \"--weights\" flag: --weights= must be numbers from 1 to 256 with commas between them, got \"1,,2\", try 'lbshim --help'\n",
		"memory app":                 "lbshim: memory needs --limit=\n",
		"memory app --limit=big":     "lbshim: invalid argument \"big\" for \"--limit\" flag: parse size \"big\": it must be a whole number of bytes, or end in K, M, G or T, try 'lbshim --help'\n",
		"upgrade app":                "lbshim: upgrade takes 0 operands, got 1, try 'lbshim --help'\n",
		"rollout app --surge=second": "lbshim: --surge= must be a number from 0 to 512 or all, got \"second\"\n",
	} {
		status, stdout, stderr := run(t, strings.Fields(args)...)
		if status != command.ExitInvalidArgument || stderr != want || stdout != "" {
			t.Errorf("%q: exit status %d, %q, want %d, %q", args, status, stderr, command.ExitInvalidArgument, want)
		}
	}
}

func TestHelpNamesEveryVerb(t *testing.T) {
	status, stdout, stderr := run(t, "--help")
	if status != command.ExitSuccess || stderr != "" {
		t.Errorf("exit status %d, %q", status, stderr)
	}
	names := []string{"join", "connect", "exec", "ready", "drain", "backoff"} // of the other program
	for _, v := range verbs() {
		names = append(names, v.Name)
	}
	for _, name := range names {
		if !strings.Contains(stdout, "\n  "+name+" ") {
			t.Errorf("--help does not name %s", name)
		}
	}
}
