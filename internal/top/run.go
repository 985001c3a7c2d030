package top

import (
	"context"
	"errors"
	"io"
	"sync"

	tea "charm.land/bubbletea/v2"
)

// frames are how often in a second the screen is drawn at most.
const frames = 20

// errTerminated is what a signal makes of a screen.
var errTerminated = errors.New("terminated; systemd finishes the jobs that it has")

// Run shows the screen on a terminal until somebody quits, which is no error, or ctx ends. It minds
// no signals: the caller catches SIGINT, and ends ctx for others. At its end it ends what is under
// way and waits for it, and the terminal is as it was before.
func Run(ctx context.Context, in io.Reader, out io.Writer, w World, o Options) error {
	b := NewBackground(ctx)
	// bubbletea's handler of signals may see the Ctrl-C that ended a view of the journal after the
	// view has ended, and would end the screen. On the screen itself Ctrl-C is a key.
	_, err := tea.NewProgram(New(b, w, o), tea.WithContext(ctx), tea.WithInput(in), tea.WithOutput(out), tea.WithEnvironment(o.Environment),
		tea.WithFPS(frames), tea.WithoutSignalHandler()).Run()
	b.End()
	if ctx.Err() != nil {
		return errTerminated
	}
	return err
}

// onTerminal is a function that has the terminal for itself while it runs, as tea.Exec wants it.
type onTerminal func() error

func (f onTerminal) Run() error        { return f() }
func (onTerminal) SetStdin(io.Reader)  {}
func (onTerminal) SetStdout(io.Writer) {}
func (onTerminal) SetStderr(io.Writer) {}

// Background has the goroutines of what a screen asks and changes. bubbletea starts them, and does
// not wait for them.
type Background struct {
	ctx    context.Context
	cancel context.CancelFunc
	mu     sync.Mutex
	ended  bool
	all    sync.WaitGroup
}

// NewBackground makes a Background, to be ended by End.
func NewBackground(ctx context.Context) *Background {
	b := new(Background)
	b.ctx, b.cancel = context.WithCancel(ctx)
	return b
}

// run makes a command of a function, which ends with its context.
func (b *Background) run(f func(context.Context) tea.Msg) tea.Cmd {
	return func() tea.Msg {
		b.mu.Lock()
		if b.ended {
			b.mu.Unlock()
			return nil
		}
		b.all.Add(1)
		b.mu.Unlock()
		defer b.all.Done()
		return f(b.ctx)
	}
}

// End ends what is under way, and waits for it.
func (b *Background) End() {
	b.cancel()
	b.mu.Lock()
	b.ended = true
	b.mu.Unlock()
	b.all.Wait()
}
