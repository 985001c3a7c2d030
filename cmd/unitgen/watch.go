package main

import (
	"bytes"
	"context"
	"fmt"
	"strconv"
	"time"

	"github.com/unitgen/unitgen/internal/app"
	"github.com/unitgen/unitgen/internal/survey"
)

// Limits of --watch=: more often than ten times a second nobody reads, and PID 1 has other work.
const (
	watchDefault = "2"
	watchLeast   = 100 * time.Millisecond
	watchMost    = time.Hour
)

// watchSpan parses the value of --watch= of list and status. For an app, --watch= is a setting.
func watchSpan(text string) (time.Duration, error) {
	d, err := app.ParseTimeSpan(text)
	if seconds, numberErr := strconv.ParseFloat(text, 64); numberErr == nil {
		d, err = time.Duration(seconds*float64(time.Second)), nil
	}
	if err != nil || d < watchLeast || d > watchMost {
		return 0, inputf("--watch=2", "--watch= must be seconds from 0.1 to 3600, got %q", text)
	}
	return d, nil
}

// watch prints once, or with --watch again and again until the user ends it. print gets the look
// before, for rates, and returns its own look. On a terminal each picture replaces the one before.
func (c *command) watch(ctx context.Context, print func(before *survey.Look) (*survey.Look, error)) error {
	if !c.options.given["watch"] {
		_, err := print(nil)
		return err
	}
	every, err := watchSpan(c.options.text("watch"))
	if err != nil {
		return err
	}
	screen := c.env.stdout
	defer func() { c.env.stdout = screen }()
	tick := time.NewTicker(every)
	defer tick.Stop()
	var before *survey.Look
	for first := true; ; first = false {
		var picture bytes.Buffer
		c.env.stdout = &picture
		before, err = print(before)
		if ctx.Err() != nil {
			return nil // that is how it ends
		}
		if err != nil {
			return err
		}
		text := picture.Bytes()
		switch {
		case c.env.terminal:
			// Over the last picture, line by line, so that nothing flickers: home, clear to each
			// line's end, clear the rest.
			text = append([]byte("\x1b[H"), bytes.ReplaceAll(text, []byte("\n"), []byte("\x1b[K\n"))...)
			text = append(text, "\x1b[J"...)
			if first {
				text = append([]byte("\x1b[2J"), text...)
			}
		case !first && c.options.json == "off":
			text = append([]byte("\n"), text...)
		}
		if _, err := screen.Write(text); err != nil {
			return fmt.Errorf("write: %w", err)
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return nil
		}
	}
}
