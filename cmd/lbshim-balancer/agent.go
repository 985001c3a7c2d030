package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/unitgen/unitgen/activation"
	"github.com/unitgen/unitgen/internal/agent"
	"github.com/unitgen/unitgen/internal/command"
	"github.com/unitgen/unitgen/internal/control"
)

// nameAgent is FileDescriptorName= of app-agent.socket.
const nameAgent = "agent"

// agentIdle is the time without a client after which the agent ends. A load balancer asks every few
// seconds, so it finds the agent running.
const agentIdle = 2 * time.Minute

// tellHost is ExecStart= of app-agent.service: it answers load balancers with the state of the app
// on this host.
func tellHost(ctx context.Context, e *command.Env, o command.Options) error {
	passed, err := activation.Inherit()
	if err != nil {
		return command.WithStatus(command.ExitNotConfigured, err)
	}
	defer passed.Close()
	all, err := passed.Listeners(nameAgent)
	if err != nil {
		return command.WithStatus(command.ExitNotConfigured, err)
	}
	if len(all) != 1 {
		return command.WithStatus(command.ExitNotConfigured, fmt.Errorf("take agent's socket: %d sockets named %q were passed, want one", len(all), nameAgent))
	}
	asker := &hostAsker{path: o.ControlPath(e)}
	server := &agent.Server{App: string(o.App), Idle: agentIdle, Log: e.Log.With("app", string(o.App)), Ask: asker.ask}
	if err := server.Serve(ctx, all[0]); !errors.Is(err, agent.ErrIdle) {
		return err
	}
	return nil
}

// hostAsker asks the shim on one connection for as long as that lasts.
//
// A connection that waits at the control socket makes PID 1 start a shim that has crashed, at once.
// It starts none that is being stopped: the control socket has a job of that stop too (PartOf=, and
// package lifecycle), and PID 1 then drops what waits there (socket_enter_running in
// src/core/socket.c).
type hostAsker struct {
	path    string
	session *control.Session // nil: none
}

// ask is for one goroutine at a time.
func (a *hostAsker) ask(ctx context.Context) (agent.State, error) {
	if a.session == nil {
		session, err := control.Connect(ctx, a.path)
		if err != nil {
			return agent.State{}, err
		}
		a.session = session
	}
	var host control.Host
	err := a.session.Call(ctx, control.MethodHost, struct{}{}, &host)
	var refused *control.Error
	if err != nil && !errors.As(err, &refused) { // a refusal is an answer, and the shim is there
		a.session.Close()
		a.session = nil
	}
	return agent.State{App: host.App, State: host.State, Weight: host.Weight, Instances: host.Instances, Up: host.Up}, err
}
