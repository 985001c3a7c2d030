//go:build integration

package generator

import (
	"context"
	"encoding/json"
	"errors"
	"os/exec"
	"strings"
	"testing"

	"github.com/unitgen/unitgen/internal/rollout/tally"
	"github.com/unitgen/unitgen/test/rig"
)

// open is there while instances of an app with this drop-in may start and stop.
const (
	open = "/run/outage-open"
	gate = `[Service]
ExecStartPre=+/bin/sh -c 'until [ -e ` + open + ` ]; do sleep 0.02; done'
ExecStop=+/bin/sh -c 'until [ -e ` + open + ` ]; do sleep 0.02; done'
`
)

// testOutage has PID 1 execute itself, and the bus die, while unitgen waits for what it has asked
// for. It goes on to wait, and says what came of it; nothing is done twice.
func testOutage(t *testing.T, s *system) {
	port := s.newPort()
	s.removeLater(t, "cutoff")
	s.MustWriteFile(t, units+"/cutoff@.service.d/gate.conf", gate, 0o644)
	s.later(t, "touch", open) // what a failed test has left waiting
	for _, outage := range []struct {
		name    string
		happens func()
	}{
		{"daemon-reexec", func() { s.MustExec(t, "systemctl", "daemon-reexec") }},
		{"bus", func() {
			s.MustExec(t, "systemctl", "reset-failed", "dbus.service") // or its start limit would end it for good
			before := s.MustShow(t, "dbus.service", "MainPID")
			s.MustExec(t, "kill", "-9", before)
			s.MustWait(t, limit, "dbus.service", func(p rig.Properties) bool { return p["ActiveState"] == "active" && p["MainPID"] != before })
		}},
	} {
		during := func(unit, subState string, args ...string) {
			t.Helper()
			s.during(t, outage.name, outage.happens, unit, subState, args...)
		}
		during("cutoff@1.service", "start-pre", "cutoff", "--now", listenOption(port), "--", server)
		s.awaitUp(t, "cutoff", 1)
		during("cutoff@2.service", "start-pre", "reload", "cutoff") // the extra instance
		s.checkRolledOnce(t, "cutoff")
		during("cutoff@1.service", "stop", "restart", "cutoff")
		s.awaitUp(t, "cutoff", 1)
		during("cutoff@2.service", "start-pre", "scale", "cutoff", "2")
		s.awaitUp(t, "cutoff", 2)
		during("cutoff@2.service", "stop", "scale", "cutoff", "1")
		during("cutoff@1.service", "stop", "remove", "cutoff")
	}
}

// checkRolledOnce checks that an app has been reloaded once, with success.
func (s *system) checkRolledOnce(t *testing.T, name string) {
	t.Helper()
	text, err := s.ReadFile("/run/unitgen/" + name + "/" + tally.File)
	if err != nil {
		t.Fatal(err)
	}
	var rollouts tally.Tally
	if err := json.Unmarshal(text, &rollouts); err != nil {
		t.Fatal(err)
	}
	if len(rollouts.Ended) != 1 || rollouts.Ended[tally.Success].Count != 1 {
		t.Errorf("rollouts of %s: %+v, want one, with success", name, rollouts.Ended)
	}
}

// during runs unitgen, lets an outage happen when a unit that waits at the gate is in a state, and
// then opens the gate.
func (s *system) during(t *testing.T, name string, outage func(), unit, subState string, args ...string) {
	t.Helper()
	s.MustExec(t, "rm", "-f", open)
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	defer cancel()
	cmd, err := s.Command(ctx, append([]string{"unitgen"}, args...)...)
	if err != nil {
		t.Fatal(err)
	}
	var out strings.Builder
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	s.MustWait(t, limit, unit, func(p rig.Properties) bool { return p["SubState"] == subState })
	outage()
	s.MustExec(t, "touch", open)
	err = cmd.Wait()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	if err != nil {
		t.Errorf("%s during unitgen %q: %v\n%s", name, args, err, &out)
	}
}
