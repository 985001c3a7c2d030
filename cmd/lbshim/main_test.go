package main

import (
	"bytes"
	"log/slog"
	"os/exec"
	"slices"
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

func TestWithoutSocketsItSaysWhichAreMissing(t *testing.T) {
	if status, _, stderr := run(t, "join", "app", "1"); status != command.ExitNotConfigured || !strings.Contains(stderr, "Sockets=") {
		t.Errorf("exit status %d, %q", status, stderr)
	}
}

func TestBadInputIsOneSpecificLine(t *testing.T) {
	for args, want := range map[string]string{
		"drain app":                 "lbshim: drain takes 2 operands, got 1, try 'lbshim --help'\n",
		"drain app 0":               "lbshim: instance must be a number between 1 and 512, got \"0\"\n",
		"drain app 007":             "lbshim: instance must be a number between 1 and 512, got \"007\"\n",
		"backoff app":               "lbshim: backoff takes 2 operands, got 1, try 'lbshim --help'\n",
		"ready app 1 --check=dance": "lbshim: --check= must be listen, node, message or http:/PATH, got \"dance\"\n",
		"exec app 1":                "lbshim: exec needs a command after \"--\", try 'lbshim --help'\n",
		"drain app 1 -- node":       "lbshim: drain takes no command, try 'lbshim --help'\n",
	} {
		status, stdout, stderr := run(t, strings.Fields(args)...)
		if status != command.ExitInvalidArgument || stderr != want || stdout != "" {
			t.Errorf("%q: exit status %d, %q, want %d, %q", args, status, stderr, command.ExitInvalidArgument, want)
		}
	}
}

func TestVerbsOfInstancesAreThisProgramsOwn(t *testing.T) {
	for args, want := range map[string]bool{
		"ready app 1":                true,
		"--user-units ready app 1":   true,
		"exec app 1 -- serve":        true,
		"serve app":                  false,
		"serve ready":                false,
		"--user-units rollout drain": false,
		"--help":                     false,
		"--":                         false,
		"dance":                      false,
		"":                           false,
	} {
		if got := ours(strings.Fields(args)); got != want {
			t.Errorf("%q: %t, want %t", args, got, want)
		}
	}
}

// What this program is made of, each command of each instance waits for.
func TestItIsSmall(t *testing.T) {
	out, err := exec.CommandContext(t.Context(), "go", "list", "-deps", ".").Output()
	if err != nil {
		t.Fatalf("list what the program imports: %v", err)
	}
	all := strings.Fields(string(out))
	for _, name := range []string{"net/http", "crypto/tls", "github.com/cilium/ebpf", "github.com/unitgen/unitgen/internal/shim"} {
		if slices.Contains(all, name) {
			t.Errorf("it imports %s", name)
		}
	}
	if !slices.Contains(all, "github.com/unitgen/unitgen/internal/command") {
		t.Error("it does not import package command: the names here are old")
	}
}
