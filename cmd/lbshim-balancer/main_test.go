package main

import (
	"strings"
	"testing"

	"github.com/unitgen/unitgen/internal/command"
	"github.com/unitgen/unitgen/internal/command/commandtest"
)

func TestWithoutSocketsItSaysHowToStartIt(t *testing.T) {
	status, _, stderr := commandtest.Run(t, verbs(), "serve", "app")
	if status != command.ExitNotConfigured {
		t.Errorf("exit status %d, want %d", status, command.ExitNotConfigured)
	}
	if !strings.Contains(stderr, "systemctl start app.service") || strings.Count(stderr, "\n") != 1 {
		t.Errorf("it says %q, want one line with the command that starts it", stderr)
	}
}

func TestBadInputIsOneSpecificLine(t *testing.T) {
	commandtest.Refuses(t, verbs(), map[string]string{
		"":                           "a verb is missing, try 'lbshim --help'",
		"balance app":                "unknown verb \"balance\", try 'lbshim --help'",
		"serve":                      "serve takes 1 operands, got 0, try 'lbshim --help'",
		"serve app --bogus":          "unknown flag: --bogus, try 'lbshim --help'",
		"serve app --weights=1,,2":   "invalid argument \"1,,2\" for \"--weights\" flag: --weights= must be numbers from 1 to 256 with commas between them, got \"1,,2\", try 'lbshim --help'",
		"memory app":                 "memory needs --limit=",
		"memory app --limit=big":     "invalid argument \"big\" for \"--limit\" flag: parse size \"big\": it must be a whole number of bytes, or end in K, M, G or T, try 'lbshim --help'",
		"upgrade app":                "upgrade takes 0 operands, got 1, try 'lbshim --help'",
		"rollout app --surge=second": "--surge= must be a number from 0 to 512 or all, got \"second\"",
	})
}

func TestHelpNamesEveryVerb(t *testing.T) {
	status, stdout, stderr := commandtest.Run(t, verbs(), "--help")
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
