package main

import (
	"context"
	"os"

	"github.com/unitgen/unitgen/internal/command"
	"github.com/unitgen/unitgen/internal/lifecycle"
	"github.com/unitgen/unitgen/internal/systemd"
)

// upgrade is what packages run when they have replaced lbshim.
func upgrade(ctx context.Context, e *command.Env, o command.Options) error {
	program, err := os.Executable()
	if err != nil {
		return err
	}
	endpoint := o.Endpoint(e)
	return systemd.Ask(ctx, endpoint, func(c *systemd.Conn) error { return lifecycle.Upgrade(ctx, c, endpoint, program, e.Log) })
}
