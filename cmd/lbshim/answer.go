package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os/signal"
	"strconv"

	"github.com/coreos/go-systemd/v22/journal"
	"golang.org/x/sys/unix"

	"github.com/unitgen/unitgen/internal/bindnotify"
	"github.com/unitgen/unitgen/internal/command"
	"github.com/unitgen/unitgen/internal/sdlog"
)

// Arguments of a supervisor after bindnotify.Verb. It takes no options, to be small: there is one
// for each instance.
const (
	answerApp = 2 + iota
	answerInstance
	answerPort // --program-port=, or 0
	answerMode // learnMode, or nothing
)

const learnMode = "learn"

// answerEnvironment keeps the runtime of a supervisor small: one thread that works, no watch on the
// CPUs, no samples of allocations, and no collection of garbage, which would cost a third of what
// the process has, until a flood of calls has made 8 MB in all.
var answerEnvironment = []string{"GOMAXPROCS=1", "GOGC=off", "GOMEMLIMIT=8MiB", "GODEBUG=containermaxprocs=0,updatemaxprocs=0,memprofilerate=0"}

// answer is the supervisor of an instance, which launch has started. It ends with the last process
// of the program, by no signal but SIGKILL: PID 1 sends the stop signal to all of the unit, and a
// program that is shutting down may still call bind.
func answer(e *command.Env) int {
	signal.Ignore()
	nameProcess()
	args := e.Args
	if len(args) <= answerPort {
		return command.ExitInvalidArgument
	}
	port, err := strconv.ParseUint(args[answerPort], 10, 16)
	if err != nil {
		return command.ExitInvalidArgument
	}
	s := bindnotify.Supervisor{ProgramPort: uint16(port), Learn: len(args) > answerMode && args[answerMode] == learnMode}
	s.Note = func(f bindnotify.Fact) {
		if level, text := f.Words(args[answerApp]); text != "" && !s.Learn {
			answerLog(e).Log(context.Background(), level, text, "instance", args[answerInstance])
		}
	}
	err = s.Serve()
	switch {
	case errors.Is(err, bindnotify.ErrAbandoned):
		return command.ExitFailure
	case err != nil:
		answerLog(e).Error("bind is no longer answered, ignoring", "error", err, "instance", args[answerInstance])
		return command.ExitFailure
	}
	return command.ExitSuccess
}

// nameProcess gives the process its name, as it was executed by another one (self). Package os
// would make a poller for that.
func nameProcess() {
	fd, err := unix.Open("/proc/self/comm", unix.O_WRONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return
	}
	_, _ = unix.Write(fd, []byte("lbshim"))
	unix.Close(fd)
}

// answerLog makes the log when there is a message, which is rare. It writes to the stream of the
// unit, which journald can assign to the unit also after the end of this process. The lines have
// the program's identifier, so each begins with our prefix.
func answerLog(e *command.Env) *slog.Logger {
	if is, _ := journal.StderrIsJournalStream(); !is {
		return slog.New(sdlog.NewStream("lbshim", e.Stderr, slog.LevelInfo))
	}
	return slog.New(sdlog.NewJournalStream("lbshim", prefixed{e.Stderr}, slog.LevelInfo))
}

// prefixed puts bindnotify.Prefix behind the priority of each line, which is written at once.
type prefixed struct{ io.Writer }

func (p prefixed) Write(line []byte) (int, error) {
	priority, text, _ := bytes.Cut(line, []byte{'>'})
	if _, err := fmt.Fprintf(p.Writer, "%s>%s%s", priority, bindnotify.Prefix, text); err != nil {
		return 0, err
	}
	return len(line), nil
}
