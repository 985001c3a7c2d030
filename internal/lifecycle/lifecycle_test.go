package lifecycle

import (
	"errors"
	"os"
	"path/filepath"
	"runtime"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/unitgen/unitgen/internal/needs"
	"github.com/unitgen/unitgen/internal/systemd"
)

// A drain, a readiness check and a channel go on when the shim is killed: PID 1 starts the next
// one. They end with a shim that does not come back.
func TestAnswersAfterTheDeathOfTheShim(t *testing.T) {
	for _, test := range []struct {
		name string
		shim systemd.UnitState
		want bool
	}{
		{"runs", systemd.UnitState{ActiveState: "active", SubState: "running", MainPID: 7}, true},
		{"starts", systemd.UnitState{ActiveState: "activating", SubState: "start", JobType: "start"}, true},
		{"reloads", systemd.UnitState{ActiveState: "reloading", SubState: "reload", JobType: "reload"}, true},
		{"runs ExecStop=", systemd.UnitState{ActiveState: "deactivating", SubState: "stop", JobType: "stop", MainPID: 7}, true},
		{"was killed", systemd.UnitState{ActiveState: "deactivating", SubState: "stop-post", Result: "signal", ExecMainStatus: 9}, true},
		{"is killed by its watchdog", systemd.UnitState{ActiveState: "deactivating", SubState: "stop-watchdog", Result: "watchdog", MainPID: 7}, true},
		{"has ended by SIGTERM", systemd.UnitState{ActiveState: "deactivating", SubState: "stop-post", Result: "success"}, true},
		{"waits for its restart", systemd.UnitState{ActiveState: "activating", SubState: "auto-restart", Result: "signal"}, true},
		{"is about to wait", systemd.UnitState{ActiveState: "failed", SubState: "failed-before-auto-restart"}, true},
		{"is restarted", systemd.UnitState{ActiveState: "deactivating", SubState: "stop-sigterm", JobType: "restart", MainPID: 7}, true},
		{"between the halves of a restart", systemd.UnitState{ActiveState: "inactive", SubState: "dead", JobType: "start"}, true},
		{"is stopped in a reload", systemd.UnitState{ActiveState: "deactivating", SubState: "stop-sigterm", JobType: "stop", MainPID: 7, ControlPID: 8}, true},
		{"has died as it is stopped in a reload", systemd.UnitState{ActiveState: "deactivating", SubState: "stop-sigterm", JobType: "stop", ControlPID: 8}, false},
		{"has died as ExecStop= runs", systemd.UnitState{ActiveState: "deactivating", SubState: "stop", JobType: "stop", Result: "signal"}, false},
		{"has died as ExecStop= of a restart runs", systemd.UnitState{ActiveState: "deactivating", SubState: "stop", JobType: "restart", Result: "signal"}, true},
		{"was told to stop", systemd.UnitState{ActiveState: "deactivating", SubState: "stop-sigterm", JobType: "stop", MainPID: 7}, false},
		{"was killed and told to stop", systemd.UnitState{ActiveState: "deactivating", SubState: "stop-post", JobType: "stop", Result: "signal"}, false},
		{"sleeps", systemd.UnitState{ActiveState: "deactivating", SubState: "stop-post", Result: "success", ExecMainStatus: ExitIdle}, false},
		{"has stopped", systemd.UnitState{ActiveState: "inactive", SubState: "dead"}, false},
	} {
		if got := Answers(test.shim); got != test.want {
			t.Errorf("a shim that %s: %v, want %v", test.name, got, test.want)
		}
	}
}

// The note of the end of a shim counts once, and without one there was none.
func TestRestartThatWasAskedForIsNoted(t *testing.T) {
	note := filepath.Join(t.TempDir(), endFile)
	for _, text := range []string{"", restarted, ""} {
		if text != "" {
			if err := writeNote(note, text); err != nil {
				t.Fatal(err)
			}
		}
		if asked, err := askedFor(t.Context(), nil, "app", note); err != nil || asked != (text == restarted) {
			t.Errorf("note %q: %v, %v", text, asked, err)
		}
	}
}

// A restart is noted where /run is full, also in place of an earlier note.
func TestNoteInAFullDirectory(t *testing.T) {
	runtime.LockOSThread() // its mounts go with it
	if err := unix.Unshare(unix.CLONE_NEWNS); errors.Is(err, unix.EPERM) {
		runtime.UnlockOSThread()
		needs.Missing(t, "must run as root")
	} else if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	if err := errors.Join(unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""), unix.Mount("full", dir, "tmpfs", 0, "size=64k")); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "filler"), make([]byte, 128<<10), 0o600); !errors.Is(err, unix.ENOSPC) {
		t.Fatalf("fill the directory: %v", err)
	}
	note := filepath.Join(dir, endFile)
	for _, text := range []string{"1234567890", restarted} {
		if err := writeNote(note, text); err != nil {
			t.Errorf("note %q: %v", text, err)
		}
	}
	if asked, err := askedFor(t.Context(), nil, "app", note); !asked || err != nil {
		t.Errorf("asked for: %v, %v", asked, err)
	}
	if err := unix.Unmount(dir, unix.MNT_DETACH); err != nil {
		t.Error(err)
	}
}
