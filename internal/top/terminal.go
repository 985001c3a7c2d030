package top

import (
	"cmp"
	"strings"
)

// IsUTF8 says whether the locale is one for UTF-8, in the order of locale(7).
func IsUTF8(getenv func(string) string) bool {
	locale := strings.ToLower(cmp.Or(getenv("LC_ALL"), cmp.Or(getenv("LC_CTYPE"), getenv("LANG"))))
	return strings.Contains(locale, "utf-8") || strings.Contains(locale, "utf8")
}

// Lines is an io.Writer that tells each line, without its newline. A last line without one is not
// told.
type Lines struct {
	Tell func(string)
	rest string
}

func (w *Lines) Write(p []byte) (int, error) {
	lines := strings.Split(w.rest+string(p), "\n")
	w.rest = lines[len(lines)-1]
	for _, line := range lines[:len(lines)-1] {
		w.Tell(line)
	}
	return len(p), nil
}
