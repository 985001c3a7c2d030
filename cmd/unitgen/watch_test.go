package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/unitgen/unitgen/internal/survey"
)

func watching(terminal bool, json string) (*command, *bytes.Buffer) {
	out := new(bytes.Buffer)
	c := &command{env: &env{stdout: out, terminal: terminal, getenv: func(string) string { return "" }}}
	c.options = &options{given: map[string]bool{"watch": true}, json: json, sort: "name", settings: map[string]*optionValues{"watch": {values: []string{"0.1"}}}}
	return c, out
}

// On a terminal a picture takes the place of the one before; else they follow one another. Each
// knows the look before it.
func TestWatch(t *testing.T) {
	for _, test := range []struct {
		terminal   bool
		json, want string
	}{
		{true, "off", "\x1b[2J\x1b[Hpicture 1\x1b[K\n\x1b[J\x1b[Hpicture 2\x1b[K\n\x1b[J"},
		{false, "off", "picture 1\n\npicture 2\n"},
		{false, "short", "picture 1\npicture 2\n"},
	} {
		c, out := watching(test.terminal, test.json)
		ctx, cancel := context.WithCancel(t.Context())
		n := 0
		err := c.watch(ctx, func(before *survey.Look) (*survey.Look, error) {
			if n++; n == 3 { // somebody ends it while it asks
				cancel()
				return nil, errors.New("interrupted")
			}
			if (before == nil) != (n == 1) || before != nil && before.At.Unix() != int64(n-1) {
				t.Errorf("picture %d after %v", n, before)
			}
			fmt.Fprintf(c.env.stdout, "picture %d\n", n)
			return &survey.Look{At: time.Unix(int64(n), 0)}, nil
		})
		if err != nil || out.String() != test.want {
			t.Errorf("%v, %q, want %q", err, out, test.want)
		}
	}
	c, _ := watching(false, "off")
	if err := c.watch(t.Context(), func(*survey.Look) (*survey.Look, error) { return nil, errors.New("no bus") }); err == nil {
		t.Error("an error is kept")
	}
}

func TestWatchSpan(t *testing.T) {
	for text, want := range map[string]time.Duration{"2": 2 * time.Second, "0.5": 500 * time.Millisecond, "1min": time.Minute, "3600": time.Hour} {
		if got, err := watchSpan(text); err != nil || got != want {
			t.Errorf("%q: %v, %v", text, got, err)
		}
	}
	for _, text := range []string{"", "0", "-1", "0.01", "3601", "often", "NaN", "infinity", "1e300"} {
		if got, err := watchSpan(text); err == nil {
			t.Errorf("%q is taken for %v", text, got)
		}
	}
}
