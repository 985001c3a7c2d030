//go:build integration

package main

import (
	"testing"
	"time"

	"github.com/unitgen/unitgen/internal/needs"
	"github.com/unitgen/unitgen/test/rig"
)

// TestShort does a few steps of a fixed plan: that all this works is tested with everything else,
// what it finds is found by make chaos.
func TestShort(t *testing.T) {
	const suite = "trixie"
	if err := rig.Missing(suite); err != nil {
		needs.Missing(t, "%v", err)
	}
	err := run(t.Context(), options{seed: 9, suite: suite, length: time.Hour, first: 2, last: 6, out: t.Output()})
	if err != nil {
		t.Error(err)
	}
}
