package control

import (
	"context"
	"errors"
	"io"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// How often a call is repeated while no shim is there. A shim that crashed is back within a quarter
// of a second, and PID 1 makes its control socket again meanwhile.
const (
	retryFirst = 20 * time.Millisecond
	retryMax   = 500 * time.Millisecond
)

// Retry runs f until it does not fail because the shim went away, is not there or does not answer,
// or until ctx ends. A shim that crashes must cost its callers time, and nothing else: an instance
// whose drain was cut off would be stopped undrained.
func Retry(ctx context.Context, f func() error) error {
	for pause := retryFirst; ; pause = min(2*pause, retryMax) {
		err := f()
		if !isDown(err) || ctx.Err() != nil {
			return err
		}
		timer := time.NewTimer(pause)
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return err
		}
	}
}

// isDown reports whether err means that there was no shim, that it went away or that it hangs; any
// other refusal is an answer.
func isDown(err error) bool {
	if refused, ok := errors.AsType[*Error](err); ok {
		return refused.Name == ErrEnding
	}
	for _, gone := range []error{
		io.EOF, io.ErrUnexpectedEOF, os.ErrNotExist, unix.ECONNREFUSED, unix.ECONNRESET, unix.EPIPE, ErrNoAnswer,
		unix.EAGAIN, // the backlog of a shim that does not accept is full
	} {
		if errors.Is(err, gone) {
			return true
		}
	}
	return false
}
