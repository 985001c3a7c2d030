package main

import (
	"bytes"
	"log/slog"
	"strings"
	"testing"

	"github.com/unitgen/unitgen/internal/sdlog"
)

// command runs lbshim in-process and returns its exit status and what it wrote.
func command(t *testing.T, args ...string) (status int, stdout, stderr string) {
	t.Helper()
	var out, errOut bytes.Buffer
	e := &env{args: args, getenv: func(string) string { return "" }, stdout: &out, stderr: &errOut}
	e.log = slog.New(sdlog.NewStream("lbshim", &errOut, slog.LevelInfo))
	status = run(t.Context(), e)
	return status, out.String(), errOut.String()
}

func TestWithoutSocketsItSaysHowToStartIt(t *testing.T) {
	status, _, stderr := command(t, "serve", "app")
	if status != exitNotConfigured {
		t.Errorf("exit status %d, want %d", status, exitNotConfigured)
	}
	if !strings.Contains(stderr, "systemctl start app.service") || strings.Count(stderr, "\n") != 1 {
		t.Errorf("it says %q, want one line with the command that starts it", stderr)
	}
	if status, _, stderr := command(t, "join", "app", "1"); status != exitNotConfigured || !strings.Contains(stderr, "Sockets=") {
		t.Errorf("join: exit status %d, %q", status, stderr)
	}
}

func TestBadInputIsOneSpecificLine(t *testing.T) {
	for args, want := range map[string]string{
		"":                           "lbshim: a verb is missing, try 'lbshim --help'\n",
		"balance app":                "lbshim: unknown verb \"balance\", try 'lbshim --help'\n",
		"serve":                      "lbshim: serve takes 1 operands, got 0, try 'lbshim --help'\n",
		"drain app":                  "lbshim: drain takes 2 operands, got 1, try 'lbshim --help'\n",
		"drain app 0":                "lbshim: instance must be a number between 1 and 512, got \"0\"\n",
		"drain app 007":              "lbshim: instance must be a number between 1 and 512, got \"007\"\n",
		"serve app --bogus":          "lbshim: unknown flag: --bogus, try 'lbshim --help'\n",
		"serve app --weights=1,,2":   "lbshim: invalid argument \"1,,2\" for \"--weights\" flag: --weights= must be numbers from 1 to 256 with commas between them, got \"1,,2\", try 'lbshim --help'\n",
		"memory app":                 "lbshim: memory needs --limit=\n",
		"memory app --limit=big":     "lbshim: invalid argument \"big\" for \"--limit\" flag: parse size \"big\": it must be a whole number of bytes, or end in K, M, G or T, try 'lbshim --help'\n",
		"backoff app":                "lbshim: backoff takes 2 operands, got 1, try 'lbshim --help'\n",
		"ready app 1 --check=dance":  "lbshim: --check= must be listen, node, message or http:/PATH, got \"dance\"\n",
		"upgrade app":                "lbshim: upgrade takes 0 operands, got 1, try 'lbshim --help'\n",
		"exec app 1":                 "lbshim: exec needs a command after \"--\", try 'lbshim --help'\n",
		"drain app 1 -- node":        "lbshim: drain takes no command, try 'lbshim --help'\n",
		"rollout app --surge=second": "lbshim: --surge= must be a number from 0 to 512 or all, got \"second\"\n",
	} {
		status, stdout, stderr := command(t, strings.Fields(args)...)
		if status != exitInvalidArgument || stderr != want || stdout != "" {
			t.Errorf("%q: exit status %d, %q, want %d, %q", args, status, stderr, exitInvalidArgument, want)
		}
	}
}

func TestHelpNamesEveryVerb(t *testing.T) {
	status, stdout, stderr := command(t, "--help")
	if status != exitSuccess || stderr != "" {
		t.Errorf("exit status %d, %q", status, stderr)
	}
	for _, v := range verbs() {
		if !strings.Contains(stdout, "\n  "+v.name+" ") {
			t.Errorf("--help does not name %s", v.name)
		}
	}
}

func TestTimesAreInSystemdsWords(t *testing.T) {
	o := defaultOptions()
	if err := o.flags().Parse([]string{"--drain-timeout=1min 30s", "--idle-exit=10min"}); err != nil {
		t.Fatal(err)
	}
	if o.drainTimeout.String() != "1m30s" || o.idleExit.String() != "10m0s" {
		t.Errorf("drain %s, idle %s", o.drainTimeout, o.idleExit)
	}
}
