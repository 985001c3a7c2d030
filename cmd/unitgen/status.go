package main

import (
	"context"

	"github.com/unitgen/unitgen/internal/roster"
	"github.com/unitgen/unitgen/internal/survey"
	"github.com/unitgen/unitgen/internal/view"
)

// status prints one app: what PID 1 knows, and what the balancer says if the caller may ask it.
func (c *command) status(ctx context.Context) error {
	a, m, err := c.dialApp(ctx)
	if err != nil {
		return err
	}
	defer m.Close()
	return c.watch(ctx, func(before *survey.Look) (*survey.Look, error) {
		s, look, err := roster.Status(ctx, m, a, before)
		if err != nil {
			return nil, err
		}
		view.Sort(s.Instances, c.options.sort)
		if c.options.json != "off" {
			return look, c.printJSON(s)
		}
		return look, s.Print(c.env.stdout, c.style(), c.env.now())
	})
}
