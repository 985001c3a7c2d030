package app

import (
	"errors"
	"fmt"
)

// InputError is something that the user gave and that cannot be done. Functions that find several return them joined
// (errors.Join), so that one run names them all; InputErrors takes such a tree apart again.
type InputError struct {
	Msg  string // begins with the option, for example "--listen= ..."
	Hint string // one line to paste or to act on; may be empty
}

// Error returns Msg; the hint is the command line's to print.
func (e *InputError) Error() string { return e.Msg }

// InputErrors returns every InputError in the tree of err, in the order in which they were joined and each text once.
// It returns nil if there is none; other errors in the tree are left out.
func InputErrors(err error) []*InputError {
	var found []*InputError
	seen := map[string]struct{}{}
	var walk func(error)
	walk = func(err error) {
		switch e := err.(type) {
		case *InputError:
			if _, dup := seen[e.Msg]; !dup {
				seen[e.Msg] = struct{}{}
				found = append(found, e)
			}
		case interface{ Unwrap() []error }:
			for _, sub := range e.Unwrap() {
				walk(sub)
			}
		case interface{ Unwrap() error }:
			walk(e.Unwrap())
		}
	}
	walk(err)
	return found
}

// inputErrors collects what is wrong, so that a check can go on after the first finding.
type inputErrors struct{ errs []error }

func (c *inputErrors) add(err error) {
	if err != nil {
		c.errs = append(c.errs, err)
	}
}

func (c *inputErrors) addf(hint, format string, args ...any) {
	c.add(inputErrorf(hint, format, args...))
}

func (c *inputErrors) err() error { return errors.Join(c.errs...) }

func inputErrorf(hint, format string, args ...any) error {
	return &InputError{Msg: fmt.Sprintf(format, args...), Hint: hint}
}
