package main

import (
	"context"
	"fmt"
	"os/user"
	"strconv"

	"github.com/unitgen/unitgen/activation"
	"github.com/unitgen/unitgen/internal/command"
	"github.com/unitgen/unitgen/internal/relay"
)

// metricsUser is the user that the relay answers: the user of units that answer scrapes
// (sysusers.d/unitgen.conf).
const metricsUser = "unitgen-metrics"

// status is ExecStart= of unitgen-status.service.
func status(ctx context.Context, e *command.Env, o command.Options) error {
	passed, err := activation.Inherit()
	if err != nil {
		return command.WithStatus(command.ExitNotConfigured, err)
	}
	defer passed.Close()
	ln, err := unixListener(passed, "status")
	if err != nil {
		return command.WithStatus(command.ExitNotConfigured, fmt.Errorf("%w (systemctl start unitgen-status.socket)", err))
	}
	uid, err := uidOf(metricsUser)
	if err != nil {
		return command.WithStatus(command.ExitNotConfigured, err)
	}
	return relay.New("/run", e.Log).Serve(ctx, ln, uid, relay.Idle)
}

func uidOf(name string) (int, error) {
	u, err := user.Lookup(name)
	if err != nil {
		return 0, fmt.Errorf("find whom to answer: %w (systemd-sysusers makes the user)", err)
	}
	return strconv.Atoi(u.Uid)
}
