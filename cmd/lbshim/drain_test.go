package main

import (
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"testing/iotest"
)

func TestContains(t *testing.T) {
	const text = "needle"
	for at := 64<<10 - 2*len(text); at < 64<<10+2*len(text); at++ {
		file := strings.Repeat("x", at) + text + strings.Repeat("x", 128<<10)
		for _, f := range []io.Reader{strings.NewReader(file), iotest.OneByteReader(strings.NewReader(file[:at+len(text)]))} {
			if found, err := contains(f, text); !found || err != nil {
				t.Fatalf("at %d: %v, %v", at, found, err)
			}
		}
		if found, err := contains(strings.NewReader(file[:at+len(text)-1]), text); found || err != nil {
			t.Fatalf("cut off at %d: %v, %v", at, found, err)
		}
	}
	if _, err := contains(iotest.ErrReader(io.ErrClosedPipe), text); err != io.ErrClosedPipe {
		t.Errorf("error %v", err)
	}
}

// The programs are stripped, as distributions do.
func TestHasServe(t *testing.T) {
	dir := t.TempDir()
	for program, want := range map[string]bool{"../../examples/go-http": true, "../unitgen": false} {
		file := filepath.Join(dir, filepath.Base(program))
		if out, err := exec.Command("go", "build", "-ldflags=-s -w", "-o", file, program).CombinedOutput(); err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
		cmd := exec.Command(file)
		cmd.Env = append(os.Environ(), "PORT=0") // go-http serves until it is killed
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		found, err := hasServe(strconv.Itoa(cmd.Process.Pid))
		cmd.Process.Kill()
		cmd.Wait()
		if err != nil || found != want {
			t.Errorf("%s: %v, %v; want %v", program, found, err, want)
		}
	}
	for _, pid := range []string{"4194305"} {
		if found, err := hasServe(pid); found || err != nil {
			t.Errorf("process %q: %v, %v", pid, found, err)
		}
	}
}
