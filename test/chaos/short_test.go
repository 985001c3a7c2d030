//go:build integration

package main

import (
	"os"
	"testing"
	"time"

	"github.com/unitgen/unitgen/test/rig"
)

// TestShort does a few steps of a fixed plan: that all this works is tested with everything else, what it finds is found by
// make chaos.
func TestShort(t *testing.T) {
	const suite = "trixie"
	if err := rig.Missing(suite); err != nil {
		if os.Getenv("UNITGEN_CI") == "1" {
			t.Fatal(err)
		}
		t.Skip(err)
	}
	// The drains of an app whose clients are never idle may last until their time-out, see docs/limits.md: longer than the steps
	// of this test may.
	without := map[string]bool{"streams": true}
	err := run(t.Context(), options{seed: 9, suite: suite, length: time.Hour, first: 2, last: 6, without: without, out: t.Output()})
	if err != nil {
		t.Error(err)
	}
}
