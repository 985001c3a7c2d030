package lifecycle

import (
	"testing"

	"github.com/unitgen/unitgen/internal/systemd"
)

// TestAnswers: a shim that is on its way is waited for; one that goes for good is not woken.
func TestAnswers(t *testing.T) {
	for _, tt := range []struct {
		state systemd.UnitState
		want  bool
	}{
		{systemd.UnitState{ActiveState: "active", SubState: "running"}, true},
		{systemd.UnitState{ActiveState: "activating", SubState: "auto-restart"}, true},
		{systemd.UnitState{ActiveState: "inactive", SubState: "dead", JobType: "start"}, true},
		{systemd.UnitState{ActiveState: "inactive", SubState: "dead", JobType: "restart"}, true},
		{systemd.UnitState{ActiveState: "failed", SubState: "failed-before-auto-restart"}, true},
		{systemd.UnitState{ActiveState: "deactivating", SubState: "stop"}, true},
		{systemd.UnitState{ActiveState: "deactivating", SubState: "stop-sigterm", JobType: "restart"}, true},
		{systemd.UnitState{ActiveState: "deactivating", SubState: "stop-sigterm", JobType: "stop"}, false},
		{systemd.UnitState{ActiveState: "inactive", SubState: "dead", JobType: "stop"}, false},
		{systemd.UnitState{ActiveState: "inactive", SubState: "dead"}, false},
		{systemd.UnitState{ActiveState: "failed", SubState: "failed"}, false},
	} {
		if got := Answers(tt.state); got != tt.want {
			t.Errorf("Answers(%+v) = %t", tt.state, got)
		}
	}
}

// TestGone: a balancer between two processes is waited for.
func TestGone(t *testing.T) {
	for _, tt := range []struct {
		state systemd.UnitState
		want  bool
	}{
		{systemd.UnitState{ActiveState: "active", SubState: "running", MainPID: 7}, false},
		{systemd.UnitState{ActiveState: "active", SubState: "running"}, false},
		{systemd.UnitState{ActiveState: "deactivating", SubState: "stop-sigterm"}, false},
		{systemd.UnitState{ActiveState: "inactive", SubState: "dead-before-auto-restart"}, false},
		{systemd.UnitState{ActiveState: "inactive", SubState: "dead", JobType: "restart"}, false},
		{systemd.UnitState{ActiveState: "failed", SubState: "failed-before-auto-restart"}, false},
		{systemd.UnitState{ActiveState: "activating", SubState: "auto-restart"}, false},
		{systemd.UnitState{ActiveState: "inactive", SubState: "dead"}, true},
		{systemd.UnitState{ActiveState: "failed", SubState: "failed"}, true},
	} {
		if got := gone(tt.state); got != tt.want {
			t.Errorf("gone(%+v) = %t", tt.state, got)
		}
	}
}
