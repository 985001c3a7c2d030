package readiness

import (
	"context"
	"encoding/json"
	"errors"
	"strings"
	"time"

	"github.com/unitgen/unitgen/internal/control"
)

// listening waits until the instance's program listens on every address of the app on the handoff
// path, and with Message has sent its ready message. The error names the missing step.
func (c Check) listening(ctx context.Context) error {
	var last control.Listening
	parameters := control.ListeningParameters{Instance: c.Instance, Message: c.Message}
	err := control.Stream(ctx, c.Control, control.MethodListening, parameters, func(raw json.RawMessage) error {
		last = control.Listening{}
		return json.Unmarshal(raw, &last)
	})
	if ctx.Err() == nil || err == nil {
		return err
	}
	if last.Refused != "" {
		return refused(last.Refused)
	}
	if len(last.Missing) == 0 && last.Silent {
		return Finding("the program listens, but has not called process.send('ready')")
	}
	if len(last.Missing) == 0 {
		return errors.New("the balancer does not answer")
	}
	return Finding("the program does not listen on " + strings.Join(last.Missing, ", "))
}

// errNothing ends a stream of answers.
var errNothing = errors.New("nothing was refused")

// refusalTimeout is for a shim that does not answer: the program has ended anyway.
const refusalTimeout = time.Second

// refusal returns why the program could not listen, which may have ended it; nil if nothing is
// known.
func (c Check) refusal(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), refusalTimeout)
	defer cancel()
	err := control.Stream(ctx, c.Control, control.MethodListening, control.ListeningParameters{Instance: c.Instance}, func(raw json.RawMessage) error {
		var now control.Listening
		if err := json.Unmarshal(raw, &now); err != nil {
			return err
		}
		if now.Refused != "" {
			return refused(now.Refused)
		}
		return errNothing // the first answer is enough
	})
	if known, ok := errors.AsType[Finding](err); ok {
		return known
	}
	return nil
}

// refused says why a program's listen() got nothing.
func refused(why string) error { return Finding("the program could not listen: " + why) }
