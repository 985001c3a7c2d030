// Package fault is for errors that a command tells its user: what is wrong, and one line to type
// about that.
//
// There are two kinds. An app.InputError is the user's to mend, and Input makes one. A Fault is
// something that the system could not do, and With makes one. Functions that find several return
// them joined, and app.Parts takes those apart.
package fault

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"
	"unicode"

	"golang.org/x/sys/unix"

	"github.com/unitgen/unitgen/internal/app"
)

// Fault is something that the system could not do. Hint is one line to paste; it may be empty.
type Fault struct {
	Err  error
	Hint string
}

func (f *Fault) Error() string { return f.Err.Error() }
func (f *Fault) Unwrap() error { return f.Err }

// With gives an error of the system's a hint. err must not be nil.
func With(err error, hint string) error { return &Fault{err, hint} }

// Input is an error of the user's.
func Input(hint, format string, args ...any) error {
	return &app.InputError{Msg: fmt.Sprintf(format, args...), Hint: hint}
}

// Hint is what to type about an error; empty where nothing is known.
func Hint(err error) string {
	var f *Fault
	var input *app.InputError
	switch {
	case errors.As(err, &f): // may wrap an InputError: what an option says of a text in a file
		return f.Hint
	case errors.As(err, &input):
		return input.Hint
	}
	return ""
}

// IsInput says whether an error is the user's to mend.
func IsInput(err error) bool {
	var f *Fault
	var input *app.InputError
	return !errors.As(err, &f) && errors.As(err, &input)
}

// Write explains a failed write: what can be done about it depends on why. nil stays nil.
func Write(err error) error {
	switch {
	case errors.Is(err, fs.ErrPermission):
		return With(err, "run it as root (sudo), or write units of your own with --user-units")
	case errors.Is(err, unix.EROFS):
		return With(err, "the file system is read-only; --output=DIR writes the units elsewhere")
	case errors.Is(err, unix.ENOSPC), errors.Is(err, unix.EDQUOT):
		return With(err, "nothing was changed; make room and run it again")
	}
	return err
}

// WithoutPath is the cause of an error of package os, for errors that name the path themselves or
// must not name it.
func WithoutPath(err error) error {
	var path *fs.PathError
	var link *os.LinkError
	switch {
	case errors.As(err, &path):
		return path.Err
	case errors.As(err, &link):
		return link.Err
	}
	return err
}

// Printable keeps what others named, such as a file or a program's last line, from acting on the
// terminal or from looking like a line of ours.
func Printable(text string) string {
	var b strings.Builder
	for _, r := range text {
		if r == '\t' || unicode.IsPrint(r) {
			b.WriteRune(r)
			continue
		}
		fmt.Fprintf(&b, "\\x%02x", r)
	}
	return b.String()
}
