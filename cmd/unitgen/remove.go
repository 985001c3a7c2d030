package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"

	"github.com/unitgen/unitgen/internal/live"
	"github.com/unitgen/unitgen/internal/plan"
)

// remove stops and disables an app, and deletes its files and links. Drop-ins of the admin stay.
func (c *command) remove(ctx context.Context) error {
	name, err := c.appName()
	if err != nil {
		return err
	}
	if !c.options.dryRun {
		release, err := c.site.Lock(ctx, c.waiting)
		if err != nil {
			return err
		}
		defer release()
	}
	changes, err := c.site.Removals(name)
	if errors.Is(err, fs.ErrNotExist) {
		return c.noApp(name)
	}
	if err != nil {
		return err
	}
	if c.options.dryRun {
		for _, ch := range changes {
			fmt.Fprintf(c.env.stdout, "# remove %s\n", ch.Path)
		}
		return nil
	}
	if c.booted && !c.site.Packaging {
		m, err := live.Dial(ctx, c.live())
		if err != nil {
			return err
		}
		defer m.Close()
		return m.Remove(ctx, name, changes)
	}
	if err := plan.Commit(changes); err != nil {
		return err
	}
	for _, e := range live.Removed(name, changes) {
		c.tell(e)
	}
	return nil
}
