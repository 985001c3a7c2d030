package systemd

import (
	"bufio"
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/godbus/dbus/v5"
)

// testContext ends long before go test's own limit, so that a call that hangs shows its stack.
func testContext(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	t.Cleanup(cancel)
	return ctx
}

// testBus is a real dbus-daemon on a socket of the test's own.
type testBus struct {
	t    *testing.T
	dir  string
	proc *exec.Cmd
}

const busConfig = `<!DOCTYPE busconfig PUBLIC "-//freedesktop//DTD D-Bus Bus Configuration 1.0//EN" "http://www.freedesktop.org/standards/dbus/1.0/busconfig.dtd">
<busconfig><listen>unix:path=%s/bus</listen><auth>EXTERNAL</auth>
<policy context="default"><allow send_destination="*" eavesdrop="true"/><allow eavesdrop="true"/><allow own="*"/></policy>
<limit name="max_match_rules_per_connection">512</limit></busconfig>`

func newTestBus(t *testing.T) *testBus {
	t.Helper()
	if _, err := exec.LookPath("dbus-daemon"); err != nil {
		t.Skip("dbus-daemon is not installed")
	}
	b := &testBus{t: t, dir: t.TempDir()}
	config := []byte(strings.Replace(busConfig, "%s", b.dir, 1))
	if err := os.WriteFile(filepath.Join(b.dir, "conf"), config, 0o600); err != nil {
		t.Fatal(err)
	}
	b.start()
	t.Cleanup(b.kill)
	return b
}

func (b *testBus) endpoint() Endpoint { return Endpoint{Bus: "unix:path=" + b.dir + "/bus"} }

// start returns when the daemon listens: it prints its address then.
func (b *testBus) start() {
	b.t.Helper()
	os.Remove(b.dir + "/bus")
	b.proc = exec.Command("dbus-daemon", "--config-file="+b.dir+"/conf", "--nofork", "--print-address=1")
	out, err := b.proc.StdoutPipe()
	if err != nil {
		b.t.Fatal(err)
	}
	if err := b.proc.Start(); err != nil {
		b.t.Fatal(err)
	}
	if _, err := bufio.NewReader(out).ReadString('\n'); err != nil {
		b.t.Fatal("dbus-daemon did not start:", err)
	}
}

func (b *testBus) kill() {
	b.proc.Process.Kill()
	b.proc.Wait()
}

// fakeManager owns org.freedesktop.systemd1 on a testBus.
type fakeManager struct {
	t    *testing.T
	conn *dbus.Conn

	mu        sync.Mutex
	units     map[dbus.ObjectPath]map[string]any
	subscribe int
	jobs      uint32
	results   map[string]string // by unit: how its jobs end
	beforeRun bool              // JobRemoved is sent before the answer that names the job
	beforeEnd func()            // called before a job ends, if set

	subscriber string // who has subscribed last
	gets       int    // questions for properties
}

func newFakeManager(t *testing.T, b *testBus) *fakeManager {
	t.Helper()
	m := &fakeManager{t: t, units: make(map[dbus.ObjectPath]map[string]any), results: make(map[string]string)}
	m.connect(b)
	return m
}

func (m *fakeManager) connect(b *testBus) {
	m.t.Helper()
	conn, err := dbus.Connect(b.endpoint().Bus)
	if err != nil {
		m.t.Fatal(err)
	}
	m.conn = conn
	m.t.Cleanup(func() { conn.Close() })
	methods := map[string]any{"Subscribe": m.doSubscribe, "StartUnit": m.startUnit, "StopUnit": m.startUnit, "Reload": m.reload}
	if err := conn.ExportMethodTable(methods, managerPath, managerIf); err != nil {
		m.t.Fatal(err)
	}
	table := map[string]any{"Get": m.get}
	if err := conn.ExportSubtreeMethodTable(table, managerPath, propertyIf); err != nil {
		m.t.Fatal(err)
	}
	if _, err := conn.RequestName(busName, dbus.NameFlagDoNotQueue); err != nil {
		m.t.Fatal(err)
	}
}

func (m *fakeManager) doSubscribe(sender dbus.Sender) *dbus.Error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.subscribe++
	m.subscriber = string(sender)
	return nil
}

func (m *fakeManager) reload() *dbus.Error { return nil }

func (m *fakeManager) startUnit(unit, mode string) (dbus.ObjectPath, *dbus.Error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	result, known := m.results[unit]
	if !known {
		return "", dbus.NewError(busName+".NoSuchUnit", []any{"Unit " + unit + " not found."})
	}
	m.jobs++
	id := m.jobs
	path := managerPath + "/job/" + dbus.ObjectPath(strconv.Itoa(int(id)))
	removed := func() { m.emit(managerPath, managerIf+".JobRemoved", id, path, unit, result) }
	if m.beforeRun {
		removed()
	} else {
		beforeEnd := m.beforeEnd
		time.AfterFunc(5*time.Millisecond, func() {
			if beforeEnd != nil {
				beforeEnd()
			}
			removed()
		})
	}
	return path, nil
}

// ends says how the jobs of a unit end, and by that the manager knows the unit.
func (m *fakeManager) ends(unit, result string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.results[unit] = result
}

// emit sends a signal. It fails where a test has ended the bus, perhaps after that test; one that
// needs the signal misses it.
func (m *fakeManager) emit(path dbus.ObjectPath, name string, values ...any) {
	_ = m.conn.Emit(path, name, values...)
}

func (m *fakeManager) get(msg dbus.Message, iface, name string) (dbus.Variant, *dbus.Error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.gets++
	path := msg.Headers[dbus.FieldPath].Value().(dbus.ObjectPath)
	if path == managerPath && name == "Version" {
		return dbus.MakeVariant("257.13-1"), nil
	}
	if v, ok := m.units[path][name]; ok {
		return dbus.MakeVariant(v), nil
	}
	defaults := map[string]any{
		"LoadState": "not-found", "ActiveState": "inactive", "SubState": "dead", "InvocationID": []byte{},
		"ActiveEnterTimestamp": uint64(0), "StateChangeTimestamp": uint64(0), "InactiveExitTimestamp": uint64(0), "MainPID": uint32(0), "Result": "success",
		"NRestarts": uint32(0), "StatusText": "", "ExecMainCode": int32(0), "ExecMainStatus": int32(0),
		"ControlGroup": "", "ControlPID": uint32(0),
		"Job": struct {
			ID   uint32
			Path dbus.ObjectPath
		}{0, "/"},
	}
	return dbus.MakeVariant(defaults[name]), nil
}

// set changes what the manager says of unit and, as PID 1 does, announces it: the type's interface
// first.
func (m *fakeManager) set(unit, active string, pid uint32) {
	m.setQuietly(unit, active, pid)
	path := UnitPath(unit)
	none := []string{}
	m.emit(path, propertyIf+".PropertiesChanged", busName+".Service", map[string]dbus.Variant{"MainPID": dbus.MakeVariant(pid)}, none)
	m.emit(path, propertyIf+".PropertiesChanged", unitIf, map[string]dbus.Variant{"ActiveState": dbus.MakeVariant(active)}, none)
}

func (m *fakeManager) setQuietly(unit, active string, pid uint32) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.units[UnitPath(unit)] = map[string]any{"LoadState": "loaded", "ActiveState": active, "SubState": "running", "MainPID": pid}
}
