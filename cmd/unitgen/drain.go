package main

import (
	"context"
	"time"

	"github.com/unitgen/unitgen/internal/app"
	"github.com/unitgen/unitgen/internal/live"
)

// drain tells load balancers to send this host nothing more.
func (c *command) drain(ctx context.Context) error {
	limit, err := c.drainLimit()
	if err != nil {
		return err
	}
	a, m, err := c.dialApp(ctx)
	if err != nil {
		return err
	}
	defer m.Close()
	serving, err := m.DrainHost(ctx, a.Name, live.HostDrain{Persist: c.options.persist})
	if err != nil {
		return err
	}
	c.say("%s is drained on this host. Take it back with: unitgen undrain %s", a.Name, a.Name)
	if a.Agent == (app.Listen{}) {
		c.say("Note: %s has no agent, so load balancers do not learn of this: unitgen %s --agent=9999", a.Name, a.Name)
	}
	if !c.options.wait || !serving {
		return nil
	}
	if err := m.AwaitDrained(ctx, a, limit); err != nil {
		return err
	}
	c.say("No connection is open.")
	return nil
}

// drainLimit is how long --wait waits; zero: for as long as it takes.
func (c *command) drainLimit() (time.Duration, error) {
	if !c.options.given["timeout"] {
		return 0, nil
	}
	if !c.options.wait {
		return 0, inputf("--wait --timeout=60s", "--timeout= needs --wait")
	}
	limit, err := app.ParseTimeSpan(c.options.timeout)
	if err != nil || limit <= 0 {
		return 0, inputf("--timeout=60s", "--timeout= must be a time span such as \"60s\", got %q", c.options.timeout)
	}
	return limit, nil
}

// undrain ends the drain.
func (c *command) undrain(ctx context.Context) error {
	a, m, err := c.dialApp(ctx)
	if err != nil {
		return err
	}
	defer m.Close()
	if err := m.UndrainHost(ctx, a.Name); err != nil {
		return err
	}
	c.say("%s is not drained on this host.", a.Name)
	return nil
}
