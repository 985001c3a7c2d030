package systemd

import (
	"fmt"
	"testing"

	"github.com/unitgen/unitgen/internal/balance"
)

// exited is CLD_EXITED.
const exited = 1

// Every pair of states that a service has on systemd 252 to 258 and that matters to somebody.
func TestWhatAStateMeans(t *testing.T) {
	const up, dead, leaving, ended, failed = "up ", "dead ", "leaving ", "ended ", "failed "
	for _, tt := range []struct {
		active, sub, result, want string
		balance                   balance.State
	}{
		{"activating", "start-pre", "success", "", balance.Starting},
		{"activating", "start", "success", "", balance.Starting},
		{"activating", "start-post", "success", "", balance.Starting},
		{"activating", "auto-restart", "exit-code", ended + failed, balance.Down},
		{"activating", "auto-restart-queued", "signal", ended + failed, balance.Down},
		{"active", "running", "success", up, balance.Up},
		{"active", "exited", "success", up, balance.Up},
		{"reloading", "reload", "success", up, balance.Up},
		{"refreshing", "refresh-extensions", "success", up, balance.Up},
		{"deactivating", "stop", "success", leaving + ended, balance.Draining},
		{"deactivating", "stop-sigterm", "success", leaving + ended, balance.Draining},
		{"deactivating", "stop-post", "success", leaving + ended, balance.Down},
		{"deactivating", "stop-post", "exit-code", leaving + ended + failed, balance.Down},
		{"inactive", "dead", "success", dead + ended, balance.Down},
		{"inactive", "dead-before-auto-restart", "success", dead + ended + failed, balance.Down},
		{"failed", "failed-before-auto-restart", "exit-code", dead + ended + failed, balance.Down},
		{"failed", "failed", "exit-code", dead + ended + failed, balance.Down},
		{"maintenance", "", "", "", balance.Down},
		{"", "", "", "", balance.Down},
	} {
		s := UnitState{ActiveState: tt.active, SubState: tt.sub, Result: tt.result, ExecMainCode: exited}
		got := ""
		for _, m := range []struct {
			word string
			is   bool
		}{{up, s.Up()}, {dead, s.Dead()}, {leaving, s.Leaving()}, {ended, s.Ended()}, {failed, s.Failed()}} {
			if m.is {
				got += m.word
			}
		}
		if got != tt.want || s.Balance() != tt.balance {
			t.Errorf("%s is %q and %s, want %q and %s", fmt.Sprint(tt.active, " (", tt.sub, ")"), got, s.Balance(), tt.want, tt.balance)
		}
	}
}

// The first signal of a next run has the state of the end or of the wait before it.
func TestBeginOfNextRunIsNoFailure(t *testing.T) {
	for _, tt := range []struct {
		result string
		code   int
		failed bool
	}{
		{"success", 0, false},
		{"success", exited, true}, // exit status 0
		{"resources", 0, true},    // no process was started
	} {
		s := UnitState{ActiveState: "activating", SubState: "auto-restart-queued", Result: tt.result, ExecMainCode: tt.code}
		if s.Failed() != tt.failed {
			t.Errorf("result %s, end %d: failed %t, want %t", tt.result, tt.code, s.Failed(), tt.failed)
		}
	}
	for result, failed := range map[string]bool{"success": false, "exit-code": true} {
		if s := (UnitState{ActiveState: "failed", SubState: "failed", Result: result}); s.Failed() != failed {
			t.Errorf("%+v: failed %t, want %t", s, s.Failed(), failed)
		}
	}
}
