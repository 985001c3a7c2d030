package explain

import (
	"strings"
)

var (
	// escapes are the control sequences of terminals (ECMA-48).
	escapes = pattern("\x1b(\\[[0-?]*[ -/]*[@-~]|[@-Z\\\\-_])")

	// raised matches the lines in which runtimes report the error that ended the program:
	// "ValueError: ...", "Error [ERR_X]: ...", "java.net.BindException: ...", "panic: ...", "thread
	// 'main' panicked at ...", "... (LoadError)".
	raised = pattern(`^(Uncaught )?([\w.]+(Error|Exception|Exit|Interrupt)|panic|fatal error|Fatal error|PHP Fatal error)( \[\w+\])?:( |$)|^Exception in thread|^thread '.*' panicked|\([\w:]*(Error|Exception)\)$|^(Unhandled exception|Fatal)\b`)

	// complaint matches words of a line about a failure.
	complaint = pattern(`(?i)\b(error|errno|exception|fatal|panic|cannot|can't|can not|could not|couldn't|unable|failed|failure|fail|denied|not found|no such|not permitted|refused|undefined|invalid|missing|in use|read-only|unknown|unsupported|bad|abort(ed)?|usage)\b`)

	// frame is a line of a stack, a caret below source text, a closing brace, Node's version at the
	// end.
	frame = pattern(`^\s|^(at |Traceback |goroutine |Node\.js v|\}|\^|note: run with|exit status \d+$)|^$`)
)

// telling returns the line that best says why a program ended; it is empty without output. Runtimes
// put that line in different places: Python below the stack, Node.js and Go above it, a shell last,
// others in the middle of a log.
func telling(lines []string) string {
	if line := afterTraceback(lines); line != "" {
		return line
	}
	for _, line := range lines {
		if raised().MatchString(line) {
			return cause(lines, line)
		}
	}
	for _, line := range lines {
		if !frame().MatchString(line) && complaint().MatchString(line) {
			return line
		}
	}
	for i := len(lines) - 1; i >= 0; i-- {
		if !frame().MatchString(lines[i]) {
			return lines[i]
		}
	}
	return ""
}

// afterTraceback is the line below Python's last stack: with several the last exception is what
// ended the program.
func afterTraceback(lines []string) (found string) {
	for i, line := range lines {
		if !strings.HasPrefix(line, "Traceback (most recent call last)") {
			continue
		}
		for _, after := range lines[i+1:] {
			if after != "" && after[0] != ' ' {
				found = after
				break
			}
		}
	}
	return found
}

// cause is the innermost reason of a Java stack, else the line itself.
func cause(lines []string, line string) string {
	for _, l := range lines {
		if inner, ok := strings.CutPrefix(l, "Caused by: "); ok {
			line = inner
		}
	}
	return line
}
