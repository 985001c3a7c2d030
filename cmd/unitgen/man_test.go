package main

import (
	"os"
	"regexp"
	"testing"

	"github.com/spf13/pflag"
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
		if !documented[f.Name] {
			t.Errorf("unitgen(1) does not have --%s", f.Name)
		}
		delete(documented, f.Name)
	})
	for name := range documented {
		t.Errorf("unitgen(1) has --%s, which does not exist", name)
	}
}
