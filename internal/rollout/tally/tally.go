// Package tally counts the rollouts of an app, by result and duration, in a file of its runtime
// directory. The rollout writes the file, and readers open it directly. The balancer is not
// involved, so its end does not reset the counts. A boot resets them, and so does "unitgen remove".
//
// It costs a rollout two small files in memory. It does not record why a rollout failed: that is in
// the journal.
package tally

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"
)

// File is the file's name in the runtime directory of an app.
const File = "rollouts.json"

// maxFile bounds what Read takes: the file has some 300 bytes.
const maxFile = 4096

// Result is how a rollout ended.
type Result string

// The results. A rollout is cancelled when it is ended by a signal, or when its balancer ends. A
// killed rollout could not record its result or its end.
const (
	Success   Result = "success"
	Failure   Result = "failure"
	Cancelled Result = "cancelled"
	Killed    Result = "killed"
)

// Results lists all results.
func Results() []Result { return []Result{Success, Failure, Cancelled, Killed} }

// Ended is what the rollouts of one result add up to.
type Ended struct {
	Count   uint64  `json:"count"`
	Seconds float64 `json:"seconds"`
}

// Tally is the content of the file. The zero value is that of an app without rollouts.
type Tally struct {
	Ended   map[Result]Ended `json:"ended,omitempty"`
	Running int64            `json:"runningSinceUSec,omitempty"` // CLOCK_REALTIME of the start of the one under way
	Last    int64            `json:"lastUSec,omitempty"`         // when the last one ended
}

// Read returns the tally in dir. Without a file it is zero.
func Read(dir string) (Tally, error) {
	var t Tally
	f, err := os.Open(filepath.Join(dir, File))
	if errors.Is(err, os.ErrNotExist) {
		return t, nil
	}
	if err != nil {
		return t, fmt.Errorf("read tally of rollouts: %w", err)
	}
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, maxFile))
	if err == nil {
		err = json.Unmarshal(text, &t)
	}
	if err != nil {
		return Tally{}, fmt.Errorf("read tally of rollouts: %w", err)
	}
	return t, nil
}

// Begin notes that a rollout begins. The caller holds the lock on rollouts, as for End and Settle.
func Begin(dir string, now time.Time) error {
	t, err := Read(dir)
	t.settle()
	t.Running = now.UnixMicro()
	return errors.Join(err, t.write(dir))
}

// End counts the rollout that began last.
func End(dir string, result Result, took time.Duration, now time.Time) error {
	t, err := Read(dir)
	t.add(result, took)
	t.Running, t.Last = 0, now.UnixMicro()
	return errors.Join(err, t.write(dir))
}

// Settle counts a rollout that was killed, if the last one was.
func Settle(dir string) error {
	t, err := Read(dir)
	if err != nil || t.Running == 0 {
		return err
	}
	t.settle()
	return t.write(dir)
}

func (t *Tally) settle() {
	if t.Running != 0 {
		t.add(Killed, 0)
		t.Running = 0
	}
}

func (t *Tally) add(result Result, took time.Duration) {
	if t.Ended == nil {
		t.Ended = make(map[Result]Ended)
	}
	e := t.Ended[result]
	t.Ended[result] = Ended{Count: e.Count + 1, Seconds: e.Seconds + took.Seconds()}
}

// write replaces the file at once, so that a reader sees all of it. Everybody may read it: unit
// files and states are public too.
func (t Tally) write(dir string) error {
	text, err := json.Marshal(t)
	if err != nil {
		return fmt.Errorf("write tally of rollouts: %w", err)
	}
	path := filepath.Join(dir, File)
	if err := os.WriteFile(path+".new", text, 0o644); err != nil {
		return fmt.Errorf("write tally of rollouts: %w", err)
	}
	// The units of an app have UMask=0077.
	err = errors.Join(os.Chmod(path+".new", 0o644), os.Rename(path+".new", path))
	if err != nil {
		return fmt.Errorf("write tally of rollouts: %w", err)
	}
	return nil
}
