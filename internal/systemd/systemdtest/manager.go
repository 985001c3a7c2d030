package systemdtest

import (
	"fmt"
	"path"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	systemd "github.com/coreos/go-systemd/v22/dbus"
	"github.com/godbus/dbus/v5"
)

// Names of the D-Bus interface, org.freedesktop.systemd1(5).
const (
	busName     = "org.freedesktop.systemd1"
	managerPath = dbus.ObjectPath("/org/freedesktop/systemd1")
	managerIf   = busName + ".Manager"
	unitIf      = busName + ".Unit"
	propertyIf  = "org.freedesktop.DBus.Properties"
	jobs        = "/org/freedesktop/systemd1/job/" // objects of jobs that have not ended
)

// Manager owns org.freedesktop.systemd1 on a Bus. It knows no unit before it is told of one. The
// mutex guards its fields; while a test holds it, no call is answered.
type Manager struct {
	sync.Mutex

	// Act is what a job does to its unit; the result is how the job ends. Nil: jobs end as Ends
	// says. It is called without the mutex.
	Act       func(verb, unit string) (result string)
	Unlisted  bool   // units are not listed by their names
	BeforeRun bool   // JobRemoved is sent before the answer that names the job
	BeforeEnd func() // is called before a job ends; nil: nothing is

	// Noted is called with each entry of Calls, with the mutex held; nil: nothing is.
	Noted func(call string)

	Calls      []string // of methods that change something, with their arguments, in their order
	Subscribed int
	Subscriber string // who has subscribed last

	t       *testing.T
	conn    atomic.Pointer[dbus.Conn]
	units   map[dbus.ObjectPath]map[string]any
	names   map[dbus.ObjectPath]string
	runs    byte   // invocations of units so far
	asked   int    // questions for properties
	changes uint64 // changes of units so far, which stand for their times
	jobs    uint32
	results map[string]string // by unit: how its jobs end
}

// NewManager connects a manager to a bus.
func NewManager(t *testing.T, b *Bus) *Manager {
	t.Helper()
	m := &Manager{t: t, units: make(map[dbus.ObjectPath]map[string]any), names: make(map[dbus.ObjectPath]string), results: make(map[string]string)}
	m.Connect(b)
	return m
}

// Connect connects to a bus that was killed and started.
func (m *Manager) Connect(b *Bus) {
	m.t.Helper()
	conn, err := dbus.Connect(b.Address, dbus.WithIncomingInterceptor(func(msg *dbus.Message) {
		property := msg.Headers[dbus.FieldInterface].Value() == propertyIf
		if msg.Type == dbus.TypeMethodCall && (property || msg.Headers[dbus.FieldMember].Value() == "ListUnitsByNames") {
			msg.Flags |= dbus.FlagNoReplyExpected // get and listNamed answer by themselves
		}
	}))
	if err != nil {
		m.t.Fatal(err)
	}
	m.conn.Store(conn)
	m.t.Cleanup(func() { conn.Close() })
	methods := map[string]any{
		"Subscribe": m.subscribe, "Reload": m.reload, "ListUnitsByPatterns": m.list, "ListUnitsByNames": m.listNamed, "ResetFailedUnit": m.reset, "EnableUnitFiles": m.enable,
		"KillUnit":  m.kill,
		"StartUnit": m.job("StartUnit"), "StopUnit": m.job("StopUnit"), "RestartUnit": m.job("RestartUnit"), "ReloadUnit": m.job("ReloadUnit"),
	}
	if err := conn.ExportMethodTable(methods, managerPath, managerIf); err != nil {
		m.t.Fatal(err)
	}
	if err := conn.ExportSubtreeMethodTable(map[string]any{"Get": m.get}, managerPath, propertyIf); err != nil {
		m.t.Fatal(err)
	}
	if _, err := conn.RequestName(busName, dbus.NameFlagDoNotQueue); err != nil {
		m.t.Fatal(err)
	}
}

// Disconnect leaves the bus, as a manager that is executed again does.
func (m *Manager) Disconnect() { m.conn.Load().Close() }

// Called takes the calls so far that changed something.
func (m *Manager) Called() []string {
	m.Lock()
	defer m.Unlock()
	calls := m.Calls
	m.Calls = nil
	return calls
}

// Asked is how often properties were asked for.
func (m *Manager) Asked() int {
	m.Lock()
	defer m.Unlock()
	return m.asked
}

// call notes a call. The caller holds the mutex.
func (m *Manager) call(words ...any) {
	call := strings.TrimSuffix(fmt.Sprintln(words...), "\n")
	m.Calls = append(m.Calls, call)
	if m.Noted != nil {
		m.Noted(call)
	}
}

func (m *Manager) subscribe(sender dbus.Sender) *dbus.Error {
	m.Lock()
	defer m.Unlock()
	m.Subscribed++
	m.Subscriber = string(sender)
	return nil
}

func (m *Manager) reload() *dbus.Error {
	m.Lock()
	defer m.Unlock()
	m.call("Reload")
	return nil
}

func (m *Manager) reset(unit string) *dbus.Error {
	m.Lock()
	defer m.Unlock()
	m.call("ResetFailedUnit", unit)
	return nil
}

func (m *Manager) kill(unit, whom string, signal int32) *dbus.Error {
	m.Lock()
	defer m.Unlock()
	m.call("KillUnit", unit, whom, signal)
	return nil
}

func (m *Manager) enable(units []string, _, _ bool) (install bool, changes []struct{ Type, File, Source string }, err *dbus.Error) {
	m.Lock()
	defer m.Unlock()
	m.call("EnableUnitFiles", strings.Join(units, " "))
	return true, append(changes, struct{ Type, File, Source string }{"symlink", "/link", "/file"}), nil
}

func (m *Manager) list(_, patterns []string) ([]systemd.UnitStatus, *dbus.Error) {
	m.Lock()
	defer m.Unlock()
	all := []systemd.UnitStatus{}
	for at, name := range m.names {
		matches := func(pattern string) bool { ok, _ := path.Match(pattern, name); return ok }
		if u := m.units[at]; slices.ContainsFunc(patterns, matches) {
			active, _ := u["ActiveState"].(string)
			all = append(all, systemd.UnitStatus{Name: name, LoadState: "loaded", ActiveState: active, SubState: "running", Path: at, JobPath: "/"})
		}
	}
	slices.SortFunc(all, func(a, b systemd.UnitStatus) int { return strings.Compare(a.Name, b.Name) })
	return all, nil
}

// listNamed answers as get does.
func (m *Manager) listNamed(msg dbus.Message, names []string) ([]systemd.UnitStatus, *dbus.Error) {
	m.Lock()
	defer m.Unlock()
	all := []systemd.UnitStatus{}
	for _, name := range names {
		at := UnitPath(name)
		states := make(map[string]string)
		for _, of := range []string{"LoadState", "ActiveState", "SubState"} {
			states[of], _ = m.property(at, of).(string)
		}
		all = append(all, systemd.UnitStatus{Name: name, LoadState: states["LoadState"], ActiveState: states["ActiveState"], SubState: states["SubState"], Path: at, JobPath: "/"})
	}
	if m.Unlisted {
		m.fail(msg, "org.freedesktop.DBus.Error.InvalidArgs")
	} else {
		m.answer(msg, all)
	}
	return nil, nil // which nobody gets
}

func (m *Manager) job(verb string) any {
	return func(unit, mode string) (dbus.ObjectPath, *dbus.Error) {
		m.Lock()
		act := m.Act
		result, known := m.results[unit]
		if act == nil && !known {
			m.Unlock()
			return "", dbus.NewError(busName+".NoSuchUnit", []any{"Unit " + unit + " not found."})
		}
		m.call(verb, unit)
		m.jobs++
		id, before, beforeEnd := m.jobs, m.BeforeRun, m.BeforeEnd
		m.Unlock()
		at := jobs + dbus.ObjectPath(strconv.Itoa(int(id)))
		m.SetProperties(at, map[string]any{"JobType": strings.ToLower(strings.TrimSuffix(verb, "Unit"))})
		end := func() {
			if act != nil {
				result = act(verb, unit)
			}
			m.SetProperties(at, nil)
			m.Emit(managerPath, managerIf+".JobRemoved", id, at, unit, result)
		}
		if before {
			end()
			return at, nil
		}
		time.AfterFunc(5*time.Millisecond, func() {
			if beforeEnd != nil {
				beforeEnd()
			}
			end()
		})
		return at, nil
	}
}

// Ends says how the jobs of a unit end, and by that the manager knows the unit.
func (m *Manager) Ends(unit, result string) {
	m.Lock()
	defer m.Unlock()
	m.results[unit] = result
}

// Emit sends a signal. It fails where a test has ended the bus, perhaps after that test; one that
// needs the signal misses it.
func (m *Manager) Emit(path dbus.ObjectPath, name string, values ...any) {
	_ = m.conn.Load().Emit(path, name, values...)
}

// get answers a question for a property before anything changes, and announcements are sent before
// the next answer: as PID 1, which does one thing at a time. godbus would send the answer when it
// gets round to it, perhaps behind the announcement of a later value, and who asked would take the
// earlier one for the latest.
func (m *Manager) get(msg dbus.Message, _, name string) (dbus.Variant, *dbus.Error) {
	m.Lock()
	defer m.Unlock()
	m.asked++
	at := msg.Headers[dbus.FieldPath].Value().(dbus.ObjectPath)
	if strings.HasPrefix(string(at), jobs) && m.units[at] == nil || at == UnitPath("") { // it has ended, or no unit can have the name
		m.fail(msg, "org.freedesktop.DBus.Error.UnknownObject")
	} else {
		m.answer(msg, dbus.MakeVariant(m.property(at, name)))
	}
	return dbus.MakeVariant(""), nil // which nobody gets
}

// answer answers a call. The caller holds the mutex.
func (m *Manager) answer(call dbus.Message, value any) {
	answer := reply(dbus.TypeMethodReply, call)
	answer.Body = []any{value}
	answer.Headers[dbus.FieldSignature] = dbus.MakeVariant(dbus.SignatureOf(value))
	m.conn.Load().Send(answer, nil)
}

// fail answers a call with an error. The caller holds the mutex.
func (m *Manager) fail(call dbus.Message, name string) {
	answer := reply(dbus.TypeError, call)
	answer.Headers[dbus.FieldErrorName] = dbus.MakeVariant(name)
	m.conn.Load().Send(answer, nil)
}

func reply(as dbus.Type, call dbus.Message) *dbus.Message {
	return &dbus.Message{Type: as, Headers: map[dbus.HeaderField]dbus.Variant{
		dbus.FieldDestination: call.Headers[dbus.FieldSender], dbus.FieldReplySerial: dbus.MakeVariant(call.Serial()),
	}}
}

func (m *Manager) property(at dbus.ObjectPath, name string) any {
	if at == managerPath && name == "Version" {
		return "257.13-1"
	}
	if v, ok := m.units[at][name]; ok {
		return v
	}
	return map[string]any{
		"LoadState": "not-found", "ActiveState": "inactive", "SubState": "dead", "InvocationID": []byte{},
		"ActiveEnterTimestamp": uint64(0), "StateChangeTimestamp": uint64(0), "InactiveExitTimestamp": uint64(0), "MainPID": uint32(0), "Result": "success",
		"NRestarts": uint32(0), "StatusText": "", "ExecMainCode": int32(0), "ExecMainStatus": int32(0),
		"ControlGroup": "", "ControlPID": uint32(0),
		"Job": struct {
			ID   uint32
			Path dbus.ObjectPath
		}{0, "/"},
	}[name]
}

// Set changes what the manager says of a unit and announces it as PID 1 does: the type's interface
// first.
func (m *Manager) Set(unit, active string, pid uint32) {
	m.SetQuietly(unit, active, pid)
	m.announce(unit)
}

// SetQuietly changes what the manager says of a unit, and announces nothing.
func (m *Manager) SetQuietly(unit, active string, pid uint32) {
	m.Lock()
	defer m.Unlock()
	m.changes++
	m.names[UnitPath(unit)] = unit
	m.units[UnitPath(unit)] = map[string]any{
		"LoadState": "loaded", "ActiveState": active, "SubState": "running", "MainPID": pid, "StateChangeTimestamp": m.changes,
	}
}

// SetProperties replaces the properties of an object, and announces nothing. The others have the
// values of a unit that is not there.
func (m *Manager) SetProperties(at dbus.ObjectPath, properties map[string]any) {
	m.Lock()
	defer m.Unlock()
	m.units[at] = properties
}

// Run is Set for a unit that begins a run (active), or that ends one. With further properties, in
// pairs of name and value.
func (m *Manager) Run(unit, active string, more ...any) {
	m.SetQuietly(unit, active, 1)
	m.Lock()
	u := m.units[UnitPath(unit)]
	if m.runs++; active != "inactive" {
		u["InvocationID"] = []byte{m.runs}
	}
	for i := 0; i+1 < len(more); i += 2 {
		u[more[i].(string)] = more[i+1]
	}
	m.Unlock()
	m.announce(unit)
}

func (m *Manager) announce(unit string) {
	m.Lock()
	defer m.Unlock()
	ofUnit, ofType := make(map[string]dbus.Variant), make(map[string]dbus.Variant)
	for name, value := range m.units[UnitPath(unit)] {
		switch name {
		case "LoadState":
		case "ActiveState", "SubState", "InvocationID", "StateChangeTimestamp":
			ofUnit[name] = dbus.MakeVariant(value)
		default:
			ofType[name] = dbus.MakeVariant(value)
		}
	}
	none := []string{}
	m.Emit(UnitPath(unit), propertyIf+".PropertiesChanged", busName+".Service", ofType, none)
	m.Emit(UnitPath(unit), propertyIf+".PropertiesChanged", unitIf, ofUnit, none)
}

// UnitPath is the object of a unit.
func UnitPath(unit string) dbus.ObjectPath {
	return managerPath + "/unit/" + dbus.ObjectPath(systemd.PathBusEscape(unit))
}
