package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/unitgen/unitgen/internal/command"
	"github.com/unitgen/unitgen/internal/control"
	"github.com/unitgen/unitgen/internal/lifecycle"
	"github.com/unitgen/unitgen/internal/readiness"
)

// What has no listener in the shim, or another one, joins with its next start.
func TestJoinNext(t *testing.T) {
	runtime := t.TempDir()
	e := &command.Env{Getenv: func(string) string { return runtime }}
	o := command.Options{App: "web", Instance: 2, UserUnits: true}
	dir := filepath.Dir(o.ControlPath(e))
	for _, tt := range []struct {
		err   error
		again bool
	}{
		{&control.Error{Name: control.ErrNoSuchInstance}, true},
		{fmt.Errorf("wait for 127.0.0.1:80: %w", readiness.ErrNotAccepted), true},
		{&control.Error{Name: control.ErrUnsupported}, false},
		{errors.New("the program has ended"), false},
	} {
		if err := os.MkdirAll(filepath.Join(dir, "joined", "2"), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := lifecycle.NoteJoined(dir, 2); err != nil {
			t.Fatal(err)
		}
		joinNext(e, o, tt.err)
		_, err := os.Stat(filepath.Join(dir, "joined", "2", "noted"))
		if again := errors.Is(err, os.ErrNotExist); again != tt.again {
			t.Errorf("after %q: joins anew %t, want %t (%v)", tt.err, again, tt.again, err)
		}
	}
}
