package activation

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"time"
)

// Barrier returns when the manager has processed every message sent before: BARRIER=1,
// sd_notify_barrier(3). A process that exits right after a message needs it, since the manager can
// no longer find out which process sent the message. If ctx ends first, Barrier returns its error.
// It needs systemd 246: older versions ignore the message and close the pipe, which looks the same.
func (n *Notifier) Barrier(ctx context.Context) error {
	if !n.Enabled() {
		return nil
	}
	r, w, err := os.Pipe()
	if err != nil {
		return fmt.Errorf("notify BARRIER=1: %w", err)
	}
	defer r.Close()
	// BARRIER=1 must be the only text in its datagram, and the pipe the only descriptor; otherwise
	// the manager ignores it.
	err = n.sendFile("BARRIER=1", w)
	if err := errors.Join(err, w.Close()); err != nil {
		return err
	}
	stop := context.AfterFunc(ctx, func() { r.SetReadDeadline(time.Unix(1, 0)) })
	defer stop()
	switch _, err := r.Read(make([]byte, 1)); {
	case errors.Is(err, io.EOF):
		return nil
	case errors.Is(err, os.ErrDeadlineExceeded):
		return fmt.Errorf("notify BARRIER=1: %w", context.Cause(ctx))
	case err != nil:
		return fmt.Errorf("notify BARRIER=1: %w", err)
	}
	return errors.New("notify BARRIER=1: the manager wrote to the pipe")
}

// sendFile sends a copy of file. Not file.Fd(), which would make the pipe blocking.
func (n *Notifier) sendFile(message string, file *os.File) error {
	raw, err := file.SyscallConn()
	if err != nil {
		return fmt.Errorf("notify %s: %w", message, err)
	}
	var sendErr error
	err = raw.Control(func(fd uintptr) { sendErr = n.send(message, int(fd)) })
	return errors.Join(err, sendErr)
}
