package main

import (
	"context"

	"github.com/unitgen/unitgen/internal/memory"
	"github.com/unitgen/unitgen/internal/systemd"
)

// relieve is ExecStart= of the unit that looks after the instances' memory.
func relieve(ctx context.Context, e *env, o options) error {
	if o.limit == 0 {
		return usageError("memory needs --limit=")
	}
	conn, err := systemd.DialToStay(ctx, o.endpoint(e))
	if err != nil {
		return err
	}
	defer conn.Close()
	return memory.Relieve(ctx, conn, o.app, o.limit, e.log)
}
