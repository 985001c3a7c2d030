package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/unitgen/unitgen/internal/app"
	"github.com/unitgen/unitgen/internal/control"
	"github.com/unitgen/unitgen/internal/fault"
	"github.com/unitgen/unitgen/internal/live"
)

// recipient takes APP or APP@INSTANCE apart; instance 0 stands for all.
func recipient(text string) (app.Name, int, error) {
	word, number, one := strings.Cut(text, "@")
	name, err := app.ParseName(word)
	if err != nil || !one {
		return name, 0, err
	}
	instance, ok := app.ParseInstance(number)
	if !ok {
		return name, 0, inputf(fmt.Sprintf("unitgen send %s@1 '{\"hello\":1}'", name), "the instance must be a number between 1 and %d, got %q", app.MaxInstances, number)
	}
	return name, instance, nil
}

// send gives a message to the programs of an app, or of one instance.
func (c *command) send(ctx context.Context) error {
	name, instance, err := recipient(c.options.name)
	if err != nil {
		return err
	}
	message := json.RawMessage(c.options.args[0])
	if !json.Valid(message) {
		return inputf(fmt.Sprintf("unitgen send %s '{\"hello\":1}'", c.options.name), "the message must be JSON, got %q", c.options.args[0])
	}
	if !c.booted {
		return fault.With(errors.New("systemd does not run here, so no app runs"), "unitgen list")
	}
	m, err := live.Dial(ctx, c.live())
	if err != nil {
		return err
	}
	defer m.Close()
	state, err := m.State(ctx, name)
	if err != nil {
		return err
	}
	if !state.Serving { // a connection to its socket would start it
		return fault.With(fmt.Errorf("%s does not run", name), c.systemctl("start "+string(name)))
	}
	return c.deliver(ctx, name, instance, message)
}

// sendTimeout is for a shim that is just being restarted; one that runs answers within milliseconds.
const sendTimeout = 30 * time.Second

// deliver hands a message to the shim of a running app.
func (c *command) deliver(ctx context.Context, name app.Name, instance int, message json.RawMessage) error {
	ctx, cancel := context.WithTimeout(ctx, sendTimeout)
	defer cancel()
	var sent control.Sent
	parameters := control.SendParameters{Instance: instance, Message: message}
	err := control.Call(ctx, name.ControlPath(c.live().RuntimeDir()), control.MethodSend, parameters, &sent)
	var refused *control.Error
	switch {
	case errors.Is(err, os.ErrPermission):
		return fault.With(err, "run it as root (sudo): others may not send to an app of the system")
	case errors.As(err, &refused) && refused.Name == control.ErrInvalid:
		return inputf("", "%s", refused.Reason)
	case err != nil:
		return fault.With(err, "unitgen status "+string(name))
	}
	var full []error
	for _, i := range sent.Dropped {
		full = append(full, fmt.Errorf("%s@%d does not read its messages, so it does not get this one", name, i))
	}
	return errors.Join(full...)
}

// systemctl is a command line for the manager of the site.
func (c *command) systemctl(words string) string {
	if c.site.UserUnits {
		return "systemctl --user " + words
	}
	return "systemctl " + words
}
