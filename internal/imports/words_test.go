package imports

import (
	"fmt"
	"path/filepath"
	"strings"
	"testing"
)

// A short source cannot keep an import busy: what is about one app is bounded, and what is about
// none too.
func TestManyWords(t *testing.T) {
	list := func(n int, format string) string {
		var b strings.Builder
		for i := range n {
			fmt.Fprintf(&b, format, i)
		}
		return b.String()
	}
	const many = 40_000
	for name, text := range map[string]string{
		"env.json":  `[{"script": "a.js", "env": {` + list(many, `"V%d": "x", `) + `"Z": ""}}]`,
		"keys.json": `[{` + list(many, `"k%d": 1, `) + `"script": "a.js"}]`,
		"a.service": "[Service]\nExecStart=/bin/x\n" + list(many, "X%d=y\n"),
		"Procfile":  "web: ./run",
		"a.conf":    "[program:a]\ncommand=/bin/a\n" + list(many, "k%d=1\n"),
	} {
		path := filepath.Join(t.TempDir(), name)
		writeTestFile(t, path, text)
		if name == "Procfile" {
			writeTestFile(t, filepath.Join(filepath.Dir(path), ".env"), list(many, "V%d=x\n"))
		}
		_, err := Read(t.Context(), options(t, path))
		if err == nil || !strings.Contains(err.Error(), "has more than 1000 words") {
			t.Errorf("%s: %v", name, err)
		}
	}
	path := filepath.Join(t.TempDir(), "rest.json")
	writeTestFile(t, path, `{`+list(many, `"k%d": 1, `)+`"apps": [{"script": "a.js"}]}`)
	m, err := Read(t.Context(), options(t, path))
	if err != nil || len(m.Rest) != maxWords+1 || m.Rest[maxWords].Word != "…" {
		t.Errorf("%d words about no app, error %v", len(m.Rest), err)
	}
}
