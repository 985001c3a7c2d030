package main

import (
	"os/exec"
	"slices"
	"strings"
	"testing"

	"github.com/unitgen/unitgen/internal/command"
	"github.com/unitgen/unitgen/internal/command/commandtest"
)

func TestWithoutSocketsItSaysWhichAreMissing(t *testing.T) {
	if status, _, stderr := commandtest.Run(t, verbs(), "join", "app", "1"); status != command.ExitNotConfigured || !strings.Contains(stderr, "Sockets=") {
		t.Errorf("exit status %d, %q", status, stderr)
	}
}

func TestBadInputIsOneSpecificLine(t *testing.T) {
	commandtest.Refuses(t, verbs(), map[string]string{
		"drain app":                 "drain takes 2 operands, got 1, try 'lbshim --help'",
		"drain app 0":               "instance must be a number between 1 and 512, got \"0\"",
		"drain app 007":             "instance must be a number between 1 and 512, got \"007\"",
		"backoff app":               "backoff takes 2 operands, got 1, try 'lbshim --help'",
		"ready app 1 --check=dance": "--check= must be listen, node, message or http:/PATH, got \"dance\"",
		"exec app 1":                "exec needs a command after \"--\", try 'lbshim --help'",
		"drain app 1 -- node":       "drain takes no command, try 'lbshim --help'",
	})
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
