package apps

import (
	"bufio"
	"context"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/unitgen/unitgen/internal/needs"
	"github.com/unitgen/unitgen/test/rig"
)

// Screen is a terminal of tmux in which a command runs in the container. It ends with the test.
type Screen struct {
	t       *testing.T
	dir     string        // of tmux's socket
	written chan struct{} // something has been, since the last read
	ended   chan struct{} // nothing more will be
}

// NewScreen runs a command, in a terminal of that size, for UTF-8 and 256 colours. Without tmux the
// test is skipped; with UNITGEN_CI=1 it fails.
func NewScreen(t *testing.T, c *rig.Container, columns, rows int, argv ...string) *Screen {
	t.Helper()
	needs.Program(t, "tmux", "tmux")
	inside, err := c.Command(t.Context(), argv...)
	if err != nil {
		t.Fatal(err)
	}
	dir, err := os.MkdirTemp("", "tmux") // t.TempDir is too long for a socket
	if err != nil {
		t.Fatal(err)
	}
	s := &Screen{t: t, dir: dir, written: make(chan struct{}, 1), ended: make(chan struct{})}
	t.Cleanup(s.close)
	environment := append([]string{"env", "-i"}, inside.Env...)
	words := append(append(environment, "TERM=tmux-256color", "LANG=C.UTF-8"), inside.Args...)
	s.tmux(append([]string{"-f", "/dev/null", "new-session", "-d", "-x", strconv.Itoa(columns), "-y", strconv.Itoa(rows), "--"}, words...)...)
	s.tmux("set-option", "-g", "window-size", "manual")
	s.listen()
	return s
}

// listen attaches a client that is told of everything that the command writes (CONTROL MODE in
// tmux(1)).
func (s *Screen) listen() {
	ctx, cancel := context.WithCancel(context.Background())
	client := s.command(ctx, "-C", "attach-session")
	in, err := client.StdinPipe()
	if err != nil {
		s.t.Fatal(err)
	}
	out, err := client.StdoutPipe()
	if err != nil {
		s.t.Fatal(err)
	}
	if err := client.Start(); err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(func() { in.Close(); cancel(); client.Wait() })
	go func() { // ends with the client
		defer close(s.ended)
		lines := bufio.NewReader(out)
		for {
			if _, err := lines.ReadString('\n'); err != nil {
				io.Copy(io.Discard, lines)
				return
			}
			select {
			case s.written <- struct{}{}:
			default:
			}
		}
	}()
}

func (s *Screen) command(ctx context.Context, args ...string) *exec.Cmd {
	c := exec.CommandContext(ctx, "tmux", append([]string{"-S", filepath.Join(s.dir, "socket")}, args...)...)
	c.Env = append(os.Environ(), "LC_ALL=C.UTF-8", "TMUX=")
	return c
}

func (s *Screen) tmux(args ...string) string {
	s.t.Helper()
	text, err := s.command(s.t.Context(), args...).CombinedOutput()
	if err != nil {
		s.t.Fatalf("tmux %q: %v: %s", args, err, text)
	}
	return string(text)
}

func (s *Screen) close() {
	s.command(context.Background(), "kill-server").Run() // it may have ended
	os.RemoveAll(s.dir)
}

// Type presses keys, in tmux's words: Enter, C-c, or characters.
func (s *Screen) Type(keys ...string) {
	s.t.Helper()
	s.tmux(append([]string{"send-keys"}, keys...)...)
}

// Resize changes the size of the terminal.
func (s *Screen) Resize(columns, rows int) {
	s.t.Helper()
	s.tmux("resize-window", "-x", strconv.Itoa(columns), "-y", strconv.Itoa(rows))
}

// Text is what stands on the screen.
func (s *Screen) Text() string {
	s.t.Helper()
	return s.tmux("capture-pane", "-p")
}

// Mode are tmux's words for a state of the terminal, such as cursor_flag and alternate_on.
func (s *Screen) Mode(words ...string) string {
	s.t.Helper()
	return strings.TrimSpace(s.tmux("display-message", "-p", "#{"+strings.Join(words, "} #{")+"}"))
}

// Await waits until the screen has all of the words, and returns it.
func (s *Screen) Await(words ...string) string {
	s.t.Helper()
	ctx, cancel := context.WithTimeout(s.t.Context(), Limit)
	defer cancel()
	for {
		text := s.Text()
		missing := ""
		for _, w := range words {
			if !strings.Contains(text, w) {
				missing = w
			}
		}
		if missing == "" {
			return text
		}
		select {
		case <-s.written:
		case <-s.ended:
			s.t.Fatalf("%q is not on the screen, and tmux has ended:\n%s", missing, text)
		case <-ctx.Done():
			s.t.Fatalf("%q is not on the screen:\n%s", missing, text)
		}
	}
}
