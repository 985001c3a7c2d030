package main

import (
	"context"
	"time"

	"github.com/unitgen/unitgen/internal/command"
	"github.com/unitgen/unitgen/internal/lifecycle"
)

// joinTimeout is how long the commands wait for a shim. A shim answers within milliseconds, and a
// restarting shim within a second.
const joinTimeout = 15 * time.Second

// shimAnswers is lifecycle.Answers for the commands of an instance.
func shimAnswers(ctx context.Context, e *command.Env, o command.Options) (bool, error) {
	if lifecycle.Running(o.App) != 0 {
		return true, nil
	}
	shim, err := command.BalancerState(ctx, e, o)
	return err == nil && lifecycle.Answers(shim), err
}
