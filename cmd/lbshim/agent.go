package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/unitgen/unitgen/activation"
	"github.com/unitgen/unitgen/internal/agent"
	"github.com/unitgen/unitgen/internal/control"
)

// nameAgent is FileDescriptorName= of app-agent.socket.
const nameAgent = "agent"

// agentIdle is after what time without a client the agent ends. A load balancer asks each few seconds, so that one that asks
// finds the agent running.
const agentIdle = 2 * time.Minute

// tellHost is ExecStart= of app-agent.service: it tells load balancers how the app is on this host.
func tellHost(ctx context.Context, e *env, o options) error {
	passed, err := activation.Inherit()
	if err != nil {
		return &statusError{exitNotConfigured, err}
	}
	defer passed.Close()
	all, err := passed.Listeners(nameAgent)
	if err != nil {
		return &statusError{exitNotConfigured, err}
	}
	if len(all) != 1 {
		return &statusError{exitNotConfigured, fmt.Errorf("take agent's socket: %d sockets named %q were passed, want one", len(all), nameAgent)}
	}
	server := &agent.Server{App: string(o.app), Idle: agentIdle, Log: e.log.With("app", string(o.app)), Ask: func(ctx context.Context) (agent.State, error) {
		return askHost(ctx, o.controlPath(e))
	}}
	if err := server.Serve(ctx, all[0]); !errors.Is(err, agent.ErrIdle) {
		return err
	}
	return nil
}

// askHost asks the shim, and again while it is restarted, until ctx ends.
func askHost(ctx context.Context, controlPath string) (agent.State, error) {
	var host control.Host
	err := control.Retry(ctx, func() error {
		return control.Call(ctx, controlPath, control.MethodHost, struct{}{}, &host)
	})
	return agent.State{App: host.App, State: host.State, Weight: host.Weight, Instances: host.Instances, Up: host.Up}, err
}
