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

// The programs are stripped, as distributions do; one is position-independent.
func TestHasServe(t *testing.T) {
	dir := t.TempDir()
	for _, tc := range []struct {
		program, mode string
		want          bool
	}{{"../../examples/go-http", "exe", true}, {"../../examples/go-http", "pie", true}, {"../unitgen", "exe", false}} {
		file := filepath.Join(dir, filepath.Base(tc.program)+"-"+tc.mode)
		if out, err := exec.Command("go", "build", "-buildmode="+tc.mode, "-ldflags=-s -w", "-o", file, tc.program).CombinedOutput(); err != nil {
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
		if err != nil || found != tc.want {
			t.Errorf("%s: %v, %v; want %v", file, found, err, tc.want)
		}
	}
	for _, pid := range []string{"4194305"} {
		if found, err := hasServe(pid); found || err != nil {
			t.Errorf("process %q: %v, %v", pid, found, err)
		}
	}
}
