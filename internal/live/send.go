package live

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"

	"github.com/unitgen/unitgen/internal/app"
	"github.com/unitgen/unitgen/internal/control"
	"github.com/unitgen/unitgen/internal/fault"
)

// Send hands a message to the programs of an app that runs, or to that of one instance; 0 is all. A
// program that does not read its messages gets none, which is an error for each. An app that does
// not run is not started.
func (m *Manager) Send(ctx context.Context, name app.Name, instance int, message json.RawMessage) error {
	state, err := m.State(ctx, name)
	if err != nil {
		return err
	}
	if !state.Serving { // a connection to its socket would start it
		return fault.With(fmt.Errorf("%s does not run", name), m.systemctl()+"start "+string(name))
	}
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	var sent control.Sent
	err = control.Call(ctx, m.controlPath(name), control.MethodSend, control.SendParameters{Instance: instance, Message: message}, &sent)
	var refused *control.Error
	switch {
	case errors.Is(err, os.ErrPermission):
		return fault.With(err, "run it as root (sudo): others may not send to an app of the system")
	case errors.As(err, &refused) && refused.Name == control.ErrInvalid:
		return fault.Input("", "%s", refused.Reason)
	case err != nil:
		return fault.With(err, "unitgen status "+string(name))
	}
	var full []error
	for _, i := range sent.Dropped {
		full = append(full, fmt.Errorf("%s@%d does not read its messages, so it does not get this one", name, i))
	}
	return errors.Join(full...)
}
