package main

import (
	"context"
	"os"
	"path/filepath"

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
	endpoint, lbshim := o.Endpoint(e), filepath.Join(filepath.Dir(program), "lbshim")
	return systemd.Ask(ctx, endpoint, func(c *systemd.Conn) error { return lifecycle.Upgrade(ctx, c, endpoint, lbshim, program, e.Log) })
}
