package app

import (
	"errors"
	"fmt"
)

// InputError is something that the user gave and that cannot be done. Functions that find several
// return them joined (errors.Join), so that one run names them all; InputErrors takes those apart
// again.
type InputError struct {
	Msg  string // begins with the option, for example "--listen= ..."
	Hint string // one line to paste or to act on; may be empty
}

// Error returns Msg; the hint is the command line's to print.
func (e *InputError) Error() string { return e.Msg }

// Parts splits the result of errors.Join, and drops duplicates. It returns nothing for nil.
func Parts(err error) []error {
	var found []error
	seen := make(map[string]bool)
	var walk func(error)
	walk = func(err error) {
		if joined, ok := err.(interface{ Unwrap() []error }); ok {
			for _, part := range joined.Unwrap() {
				walk(part)
			}
		} else if err != nil && !seen[err.Error()] {
			seen[err.Error()] = true
			found = append(found, err)
		}
	}
	walk(err)
	return found
}

// InputErrors returns the InputErrors among the Parts of err. It returns nil if there is none.
func InputErrors(err error) []*InputError {
	var found []*InputError
	for _, part := range Parts(err) {
		if input, ok := errors.AsType[*InputError](part); ok {
			found = append(found, input)
		}
	}
	return found
}

// inputErrors collects errors, so that a check can continue after the first one.
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
