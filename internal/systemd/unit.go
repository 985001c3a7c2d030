package systemd

import (
	"context"
	"encoding/hex"
	"fmt"
	"strings"
	"time"

	systemd "github.com/coreos/go-systemd/v22/dbus"
	"github.com/godbus/dbus/v5"
)

// UnitState is what the manager says of one unit. Fields that a type of unit does not have are
// zero. Two states are equal, by ==, if nothing that is named here has changed.
type UnitState struct {
	Name         string
	LoadState    string // loaded, not-found, masked, error, bad-setting
	ActiveState  string // active, reloading, inactive, failed, activating, deactivating
	SubState     string // running, auto-restart, listening, ...: by type of unit
	InvocationID string // 32 hex digits, new at every start; empty if the unit was never started
	ActiveEnter  int64  // when it last became active, µs since 1970; 0 for never (see Since)
	StateChange  int64  // when it last changed its state, µs since 1970

	// Services; Result is also a socket's.
	MainPID        int
	Result         string // success, exit-code, signal, timeout, ...
	NRestarts      int    // automatic restarts since the last start by hand
	StatusText     string // STATUS= of sd_notify(3)
	ExecMainCode   int    // how the last main process ended: CLD_EXITED, CLD_KILLED or CLD_DUMPED of sigaction(2); 0 while it runs
	ExecMainStatus int    // its exit status or signal

	// What the manager sends no signals for: read by Conn.Unit, zero in what a Watcher reports, as all
	// above is but the name, the three states and the time of the change if its owner does not want it.
	// UnitFileState and NeedDaemonReload are not among them: for each PID 1 reads all directories
	// of unit files.
	InactiveExit int64 // when it last began to start, µs since 1970; an automatic restart begins with its delay
	ControlGroup string
	ControlPID   int    // of ExecStartPre=, ExecReload=, ExecStop=, ... while one runs
	JobType      string // start, stop, restart, ... of the job that waits or runs; empty for none
}

// Since is ActiveEnter as a time; the zero time for never.
func (s UnitState) Since() time.Time {
	if s.ActiveEnter == 0 {
		return time.Time{}
	}
	return time.UnixMicro(s.ActiveEnter)
}

// UnitPath is the object path of a unit.
func UnitPath(name string) dbus.ObjectPath {
	return dbus.ObjectPath("/org/freedesktop/systemd1/unit/" + systemd.PathBusEscape(name))
}

// typeInterface is the interface of a unit's type that has properties we read; empty for types that
// have none.
func typeInterface(name string) string {
	switch {
	case strings.HasSuffix(name, ".service"):
		return busName + ".Service"
	case strings.HasSuffix(name, ".socket"):
		return busName + ".Socket"
	}
	return ""
}

// listedProperties are the states of a unit, which a listing has too.
func listedProperties() []string { return []string{"LoadState", "ActiveState", "SubState"} }

// changeTime is when a unit last changed its state. It is asked for before the rest: if the state
// changes while it is read, the time is too old, and link.changed sees that.
const changeTime = "StateChangeTimestamp"

// invocation is the InvocationID of a unit.
const invocation = "InvocationID"

// signalledProperties are what PropertiesChanged announces beside the above, by interface, so that a
// Watcher reads them once and then gets their changes. Single Gets, sent together, are cheaper for
// the manager than GetAll, which computes some hundred values and reads the unit's control group for
// it.
func signalledProperties(iface string) []string {
	switch iface {
	case unitIf:
		return []string{invocation, "ActiveEnterTimestamp"}
	case busName + ".Service":
		return []string{"MainPID", "Result", "NRestarts", "StatusText", "ExecMainCode", "ExecMainStatus"}
	case busName + ".Socket":
		return []string{"Result"}
	}
	return nil
}

// allProperties are all that Conn.Unit reads of an interface.
func allProperties(iface string) []string {
	all := append(signalledProperties(iface), silentProperties(iface)...)
	if iface == unitIf {
		all = append(append([]string{changeTime}, listedProperties()...), all...)
	}
	return all
}

func silentProperties(iface string) []string {
	switch iface {
	case unitIf:
		return []string{"InactiveExitTimestamp", "Job"}
	case busName + ".Service", busName + ".Socket":
		return []string{"ControlGroup", "ControlPID"}
	}
	return nil
}

// ReadUnit is Unit on a new connection, for a single question.
func ReadUnit(ctx context.Context, e Endpoint, name string) (state UnitState, err error) {
	state.Name = name
	err = Ask(ctx, e, func(c *Conn) (err error) {
		state, err = c.Unit(ctx, name)
		return err
	})
	return state, err
}

// Active reads whether a unit is active, and in which invocation: ActiveState, SubState and
// InvocationID of its state, in three requests instead of a dozen.
func (c *Conn) Active(ctx context.Context, name string) (UnitState, error) {
	state := UnitState{Name: name}
	values, err := c.properties(ctx, UnitPath(name), unitIf, []string{"ActiveState", "SubState", "InvocationID"})
	if err != nil {
		return state, fmt.Errorf("read state of %s: %w", name, err)
	}
	state.apply(values)
	return state, nil
}

// Unit reads the present state of a unit. A unit without a file is no error: its LoadState is
// not-found and its ActiveState inactive.
func (c *Conn) Unit(ctx context.Context, name string) (UnitState, error) {
	state := UnitState{Name: name}
	var job dbus.ObjectPath
	for _, iface := range []string{unitIf, typeInterface(name)} {
		values, err := c.properties(ctx, UnitPath(name), iface, allProperties(iface))
		if err != nil {
			return state, fmt.Errorf("read state of %s: %w", name, err)
		}
		state.apply(values)
		job = jobPath(values, job)
	}
	if job != "" {
		v, err := c.property(ctx, job, jobIf, "JobType")
		if isDBusError(err, "org.freedesktop.DBus.Error.UnknownObject") {
			return state, nil // it has ended meanwhile
		}
		if err != nil {
			return state, fmt.Errorf("read job of %s: %w", name, err)
		}
		state.JobType, _ = v.Value().(string)
	}
	return state, nil
}

// Refresh is Unit for a state that is known: it is returned if the unit has not changed since, which
// costs one request.
func (c *Conn) Refresh(ctx context.Context, known UnitState) (UnitState, error) {
	changed := false
	err := c.use(ctx, func(l *link) (err error) {
		changed, err = l.changed(ctx, known)
		return err
	})
	if err != nil || !changed {
		return known, err
	}
	return c.Unit(ctx, known.Name)
}

// changed reports whether a unit has changed its state since the one that is known.
func (l *link) changed(ctx context.Context, known UnitState) (bool, error) {
	values, _, err := l.properties(ctx, UnitPath(known.Name), unitIf, []string{changeTime})
	if err != nil {
		return false, fmt.Errorf("read time of the last change of %s: %w", known.Name, err)
	}
	var now UnitState
	now.apply(values)
	return now.StateChange != known.StateChange, nil
}

// jobPath takes the path of the unit's job from property Job, a pair of number and path; without
// one it is was.
func jobPath(values map[string]dbus.Variant, was dbus.ObjectPath) dbus.ObjectPath {
	v, ok := values["Job"]
	if !ok {
		return was
	}
	var job struct {
		ID   uint32
		Path dbus.ObjectPath
	}
	if v.Store(&job) != nil || job.ID == 0 {
		return was
	}
	return job.Path
}

// apply takes over the properties that are named in values, of whatever interface: no name means
// two things.
func (s *UnitState) apply(values map[string]dbus.Variant) {
	for name, v := range values {
		switch value := v.Value().(type) {
		case string:
			s.applyString(name, value)
		case uint32:
			switch name {
			case "MainPID":
				s.MainPID = int(value)
			case "ControlPID":
				s.ControlPID = int(value)
			case "NRestarts":
				s.NRestarts = int(value)
			}
		case int32:
			switch name {
			case "ExecMainCode":
				s.ExecMainCode = int(value)
			case "ExecMainStatus":
				s.ExecMainStatus = int(value)
			}
		case uint64:
			switch name {
			case "ActiveEnterTimestamp":
				s.ActiveEnter = int64(value)
			case changeTime:
				s.StateChange = int64(value)
			case "InactiveExitTimestamp":
				s.InactiveExit = int64(value)
			}
		case []byte:
			if name == invocation {
				s.InvocationID = hex.EncodeToString(value)
			}
		}
	}
}

func (s *UnitState) applyString(name, value string) {
	switch name {
	case "LoadState":
		s.LoadState = value
	case "ActiveState":
		s.ActiveState = value
	case "SubState":
		s.SubState = value
	case "Result":
		s.Result = value
	case "StatusText":
		s.StatusText = value
	case "ControlGroup":
		s.ControlGroup = value
	}
}
