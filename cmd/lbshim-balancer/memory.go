package main

import (
	"context"

	"github.com/unitgen/unitgen/internal/command"
	"github.com/unitgen/unitgen/internal/memory"
	"github.com/unitgen/unitgen/internal/systemd"
)

// relieve is ExecStart= of the unit that looks after the instances' memory.
func relieve(ctx context.Context, e *command.Env, o command.Options) error {
	if o.Limit == 0 {
		return command.UsageError("memory needs --limit=")
	}
	conn, err := systemd.DialToStay(ctx, o.Endpoint(e))
	if err != nil {
		return err
	}
	defer conn.Close()
	return memory.Relieve(ctx, conn, o.App, o.Limit, e.Log)
}
