package live

import (
	"context"
	"fmt"
)

// Interrupted is the error of an operation whose command was ended. It unwraps to what ended the
// command.
type Interrupted struct {
	GoesOn string // what systemd does all the same, as a sentence
	Hint   string // what to type to see it, or to finish; may be empty
	cause  error
}

func (i *Interrupted) Error() string { return "interrupted: " + i.GoesOn }
func (i *Interrupted) Unwrap() error { return i.cause }

// goesOn is err, or an Interrupted if ctx has ended.
func goesOn(ctx context.Context, err error, hint, format string, args ...any) error {
	if err == nil || ctx.Err() == nil {
		return err
	}
	return &Interrupted{GoesOn: fmt.Sprintf(format, args...), Hint: hint, cause: context.Cause(ctx)}
}
