package readiness

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	"github.com/unitgen/unitgen/internal/control"
)

// missing is what Check needs of the shim's answers to Listening.
type missing struct {
	Missing []string `json:"missing"`
	Silent  bool     `json:"silent"`
	Refused string   `json:"refused"`
}

// listening waits until the instance's program listens on every address of the app, and with Message has said so. What it
// did not do in time is in the error.
func (c Check) listening(ctx context.Context) error {
	client, err := control.Dial(ctx, c.Control)
	if err != nil {
		return err
	}
	defer client.Close()
	var last missing
	parameters := map[string]any{"instance": c.Instance, "message": c.Message}
	err = client.Stream(ctx, "Listening", parameters, func(raw json.RawMessage) error {
		last = missing{}
		return json.Unmarshal(raw, &last)
	})
	if ctx.Err() == nil || err == nil {
		return err
	}
	if last.Refused != "" {
		return fmt.Errorf("the program could not listen: %s", last.Refused)
	}
	if len(last.Missing) == 0 && last.Silent {
		return errors.New("the program listens, but has not called process.send('ready')")
	}
	if len(last.Missing) == 0 {
		return errors.New("the balancer does not answer")
	}
	return fmt.Errorf("the program does not listen on %s", strings.Join(last.Missing, ", "))
}
