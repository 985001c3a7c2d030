package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/spf13/pflag"

	"github.com/unitgen/unitgen/internal/app"
	"github.com/unitgen/unitgen/internal/needs"
)

// TestManPageHasTheOptions compares unitgen(1) with the flag set, both ways.
func TestManPageHasTheOptions(t *testing.T) {
	page, err := os.ReadFile("../../packaging/man/unitgen.1")
	if err != nil {
		t.Fatal(err)
	}
	documented := make(map[string]bool)
	for _, m := range regexp.MustCompile(`Fl -([a-z][a-z-]*)`).FindAllStringSubmatch(string(page), -1) {
		documented[m[1]] = true
	}
	new(options).flags().VisitAll(func(f *pflag.Flag) {
		if !documented[f.Name] && !f.Hidden {
			t.Errorf("unitgen(1) does not have --%s", f.Name)
		}
		delete(documented, f.Name)
	})
	for name := range documented {
		t.Errorf("unitgen(1) has --%s, which does not exist", name)
	}
}

// TestManPageHasTheKeys compares unitgen(5) with the keys that are read, both ways, and each key's
// option.
func TestManPageHasTheKeys(t *testing.T) {
	page, err := os.ReadFile("../../packaging/man/unitgen.5")
	if err != nil {
		t.Fatal(err)
	}
	_, keys, _ := strings.Cut(string(page), "\n.Sh KEYS\n")
	keys, _, _ = strings.Cut(keys, "\n.Sh ")
	documented := make(map[string]string) // what the page says of each
	for _, entry := range strings.Split(keys, "\n.It Cm ")[1:] {
		key, text, _ := strings.Cut(entry, "\n")
		documented[key] = text
	}
	for _, k := range app.Table() {
		text, ok := documented[k.Key]
		option := regexp.MustCompile(`\bFl -` + k.Option + `( |\n|$)`).MatchString(text)
		switch {
		case !ok:
			t.Errorf("unitgen(5) does not have %s=", k.Key)
		case k.Option != "" && !option:
			t.Errorf("unitgen(5) does not say that %s= is --%s", k.Key, k.Option)
		case k.List != strings.Contains(text, "May stand several times."):
			t.Errorf("unitgen(5) does not say whether %s= may stand several times", k.Key)
		}
		delete(documented, k.Key)
	}
	for key := range documented {
		t.Errorf("unitgen(5) has %s=, which does not exist", key)
	}
}

// What unitgen(5) gives as examples are files that unitgen takes.
func TestManPageExamples(t *testing.T) {
	page, err := os.ReadFile("../../packaging/man/unitgen.5")
	if err != nil {
		t.Fatal(err)
	}
	examples := regexp.MustCompile(`(?s)\n\.Bd -literal[^\n]*\n(.*?)\n\.Ed\n`).FindAllStringSubmatch(string(page), -1)
	if len(examples) != 2 {
		t.Fatalf("%d examples", len(examples))
	}
	for _, example := range examples {
		text := strings.ReplaceAll(example[1], `\(dq`, `"`)
		if _, err := app.ParseFile("example", text); err != nil {
			t.Errorf("%s\n%v", text, err)
		}
	}
}

// TestManPagesLint has mandoc look at all pages.
func TestManPagesLint(t *testing.T) {
	mandoc := needs.Program(t, "mandoc", "mandoc")
	pages, err := filepath.Glob("../../packaging/man/*.[1-9]")
	if err != nil || len(pages) == 0 {
		t.Fatal(pages, err)
	}
	if out, err := exec.CommandContext(t.Context(), mandoc, append([]string{"-T", "lint", "-W", "warning"}, pages...)...).CombinedOutput(); err != nil || len(out) > 0 {
		t.Errorf("%v\n%s", err, out)
	}
}
