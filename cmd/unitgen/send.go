package main

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"

	"github.com/unitgen/unitgen/internal/app"
)

// recipient parses APP or APP@INSTANCE. Instance 0 is all instances.
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

// send sends a message to the programs of an app, or to the program of one instance.
func (c *command) send(ctx context.Context) error {
	name, instance, err := recipient(c.options.name)
	if err != nil {
		return err
	}
	message := json.RawMessage(c.options.args[0])
	if !json.Valid(message) {
		return inputf(fmt.Sprintf("unitgen send %s '{\"hello\":1}'", c.options.name), "the message must be JSON, got %q", c.options.args[0])
	}
	m, err := c.dial(ctx)
	if err != nil {
		return err
	}
	defer m.Close()
	return m.Send(ctx, name, instance, message)
}
