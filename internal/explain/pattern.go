package explain

import (
	"regexp"
	"sync"
)

// pattern compiles a regular expression when it is first used. The commands that the units of an
// instance run at each start have this package in them, and nearly all of them explain nothing.
func pattern(expression string) func() *regexp.Regexp {
	return sync.OnceValue(func() *regexp.Regexp { return regexp.MustCompile(expression) })
}
