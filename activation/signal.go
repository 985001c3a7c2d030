package activation

import (
	"context"
	"os/signal"

	"golang.org/x/sys/unix"
)

// StopSignal returns a context that ends with the first SIGTERM, which "systemctl stop" and
// "systemctl restart" send, or SIGINT. The second signal is no longer caught and ends the process
// at once. Call it first in main: a SIGTERM that comes before kills the process, a connection just
// accepted included. Calling stop releases the signals.
//
// SIGHUP stays as it is and ends the process: a unit that says Type=notify-reload needs a handler
// of its own.
func StopSignal(parent context.Context) (ctx context.Context, stop context.CancelFunc) {
	ctx, stop = signal.NotifyContext(parent, unix.SIGTERM, unix.SIGINT)
	context.AfterFunc(ctx, stop)
	return ctx, stop
}
