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
	Refused string   `json:"refused"`
}

// listening waits until the instance's program listens on every address of the app. What it did not do in time is in
// the error.
func (c Check) listening(ctx context.Context) error {
	client, err := control.Dial(ctx, c.Control)
	if err != nil {
		return err
	}
	defer client.Close()
	var last missing
	err = client.Stream(ctx, "Listening", map[string]int{"instance": c.Instance}, func(raw json.RawMessage) error {
		last = missing{}
		return json.Unmarshal(raw, &last)
	})
	if ctx.Err() == nil || err == nil {
		return err
	}
	if last.Refused != "" {
		return fmt.Errorf("the program could not listen: %s", last.Refused)
	}
	if len(last.Missing) == 0 {
		return errors.New("the balancer does not answer")
	}
	return fmt.Errorf("the program does not listen on %s", strings.Join(last.Missing, ", "))
}
