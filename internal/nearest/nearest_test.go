package nearest

import (
	"strings"
	"testing"
)

func TestOf(t *testing.T) {
	names := []string{"instances", "listen", "status", "scale"}
	for word, want := range map[string]string{
		"intsances": "instances", "lisen": "listen", "stauts": "status", "sta": "status", "st": "", "web": "", "": "",
		strings.Repeat("x", 1<<20): "",
	} {
		if got := Of(word, names); got != want {
			t.Errorf("%.20q is near %q, want %q", word, got, want)
		}
	}
}

func TestDistance(t *testing.T) {
	for _, test := range []struct {
		a, b string
		want int
	}{{"", "abc", 3}, {"abc", "abc", 0}, {"abc", "acb", 1}, {"abc", "abd", 1}, {"abc", "ab", 1}, {"abc", strings.Repeat("b", 99), 99}} {
		if got := Distance(test.a, test.b); got != test.want {
			t.Errorf("from %q to %q: %d, want %d", test.a, test.b, got, test.want)
		}
	}
}
