package systemd

import (
	"bytes"
	"encoding/binary"
	"errors"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/godbus/dbus/v5"

	"github.com/unitgen/unitgen/internal/systemd/systemdtest"
)

// stranger is a connection of somebody else on the bus.
type stranger struct {
	t    *testing.T
	conn *dbus.Conn
}

func newStranger(t *testing.T, b *systemdtest.Bus) *stranger {
	t.Helper()
	conn, err := dbus.Connect(b.Address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return &stranger{t, conn}
}

// send sends a signal to one connection, as busctl emit --destination= does.
func (s *stranger) send(to string, path dbus.ObjectPath, iface, member string, body ...any) {
	s.t.Helper()
	msg := &dbus.Message{Type: dbus.TypeSignal, Body: body, Headers: map[dbus.HeaderField]dbus.Variant{
		dbus.FieldDestination: dbus.MakeVariant(to), dbus.FieldPath: dbus.MakeVariant(path),
		dbus.FieldInterface: dbus.MakeVariant(iface), dbus.FieldMember: dbus.MakeVariant(member),
		dbus.FieldSignature: dbus.MakeVariant(dbus.SignatureOf(body...)),
	}}
	if call := s.conn.Send(msg, nil); call.Err != nil {
		s.t.Fatal(call.Err)
	}
}

// sent returns when the bus has taken in everything that was sent.
func (s *stranger) sent() {
	s.t.Helper()
	if err := s.conn.BusObject().Call(daemonName+".GetId", 0).Err; err != nil {
		s.t.Fatal(err)
	}
}

// descriptors counts those of this process.
func descriptors(t *testing.T) int {
	t.Helper()
	all, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(all)
}

func TestForgedSignalsAreNotBelieved(t *testing.T) {
	b := systemdtest.NewBus(t)
	m := systemdtest.NewManager(t, b)
	m.SetQuietly("app@1.service", "active", 11)
	w := NewWatcher(WatcherOptions{Endpoint: endpoint(b), Properties: allSignalled})
	defer w.Close()
	w.Watch("app@1.service")
	next(t, w, "app@1.service")
	s := newStranger(t, b)
	before := descriptors(t)
	m.Lock()
	victim := m.Subscriber
	m.Unlock()

	path := UnitPath("app@1.service")
	s.send(victim, path, propertyIf, "PropertiesChanged", unitIf,
		map[string]dbus.Variant{"ActiveState": dbus.MakeVariant("failed"), "SubState": dbus.MakeVariant("failed")}, []string{})
	// The manager, who reads anew upon these, would be asked without end.
	s.send(victim, managerPath, managerIf, "Reloading", false)
	s.send(victim, "/org/freedesktop/DBus", daemonName, "NameOwnerChanged", busName, "", s.conn.Names()[0])
	// Of any size: what is skipped is not kept. The message is longer than the whole memory that is
	// read at a time.
	s.send(victim, path, propertyIf, "PropertiesChanged", unitIf, strings.Repeat("x", maxBody+1))
	s.sent()
	asked := m.Asked()
	m.Set("app@1.service", "active", 12)
	if got := next(t, w, "app@1.service"); got.ActiveState != "active" || got.MainPID != 12 {
		t.Errorf("after forged signals: %+v, want what the manager has said", got)
	}
	if again := m.Asked() - asked; again != 0 {
		t.Errorf("forged signals have made the watcher ask the manager %d times", again)
	}
	if now := descriptors(t); now != before {
		t.Errorf("%d descriptors, before %d", now, before)
	}
}

// A signal may carry descriptors, which nobody would close.
func TestForgedSignalsBringNoDescriptors(t *testing.T) {
	b := systemdtest.NewBus(t)
	systemdtest.NewManager(t, b)
	c := dialTest(t, b)
	s := newStranger(t, b)
	f, err := os.Open("/dev/null")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	before := descriptors(t)
	for range 20 {
		s.send(c.link.bus.Names()[0], managerPath, managerIf, "JobNew", dbus.UnixFD(f.Fd()))
	}
	s.sent()
	if _, err := c.Version(testContext(t)); err != nil { // its answer comes after them
		t.Fatal(err)
	}
	if now := descriptors(t); now != before {
		t.Errorf("%d descriptors, before %d", now, before)
	}
}

func TestForgedEndOfAJobIsNotBelieved(t *testing.T) {
	b := systemdtest.NewBus(t)
	m := systemdtest.NewManager(t, b)
	m.Ends("bad.service", "failed")
	c := dialTest(t, b)
	s := newStranger(t, b)
	m.Lock()
	m.BeforeEnd = func() {
		s.send(c.link.bus.Names()[0], managerPath, managerIf, "JobRemoved", uint32(1), managerPath+"/job/1", "bad.service", "done")
		s.sent()
	}
	m.Unlock()
	err := c.Run(testContext(t), Job{Verb: Start, Unit: "bad.service"})
	var job *JobError
	if !errors.As(err, &job) {
		t.Errorf("error %v, want that the job has failed", err)
	}
}

// Upon each JobNew that is believed the manager is asked again.
func TestForgedJobIsNotAwaited(t *testing.T) {
	const unit = "app@1.service"
	b := systemdtest.NewBus(t)
	m := systemdtest.NewManager(t, b)
	c := dialTest(t, b)
	s := newStranger(t, b)
	giveJob(m, unit, "start")
	done := make(chan error, 1)
	go func() { done <- c.AwaitStop(testContext(t), unit) }()
	look := len(allProperties(unitIf)) + len(allProperties(busName+".Service")) + 1 // JobType
	for m.Asked() < look {
		select {
		case err := <-done:
			t.Fatalf("it has returned %v after %d of %d questions", err, m.Asked(), look)
		case <-time.After(time.Millisecond):
		}
	}
	for range 50 {
		s.send(c.link.bus.Names()[0], managerPath, managerIf, "JobNew", uint32(7), managerPath+"/job/7", unit)
	}
	s.sent()
	giveJob(m, unit, "stop")
	m.Emit(managerPath, managerIf+".JobNew", uint32(7), managerPath+"/job/7", unit)
	if err := <-done; err != nil {
		t.Error(err)
	}
	if got := m.Asked(); got != 2*look {
		t.Errorf("%d questions to the manager, want %d", got, 2*look)
	}
}

func TestSenderOfAMessage(t *testing.T) {
	for _, order := range []binary.ByteOrder{binary.LittleEndian, binary.BigEndian} {
		for _, sender := range []string{"", ":1.2", daemonName} {
			msg := &dbus.Message{Type: dbus.TypeSignal, Body: []any{"text", uint32(7)}, Headers: map[dbus.HeaderField]dbus.Variant{
				dbus.FieldPath: dbus.MakeVariant(dbus.ObjectPath("/a")), dbus.FieldInterface: dbus.MakeVariant("a.b"),
				dbus.FieldMember: dbus.MakeVariant("Member"), dbus.FieldSignature: dbus.MakeVariant(dbus.SignatureOf("", uint32(0))),
			}}
			if sender != "" {
				msg.Headers[dbus.FieldSender] = dbus.MakeVariant(sender)
			}
			var b bytes.Buffer
			if err := msg.EncodeTo(&b, order); err != nil {
				t.Fatal(err)
			}
			header := b.Bytes()[:minHeader+order.Uint32(b.Bytes()[12:])]
			if got := senderOf(header, order); got != sender {
				t.Errorf("%v: sender %q, want %q", order, got, sender)
			}
			for cut := minHeader; cut < len(header); cut++ {
				if got := senderOf(header[:cut], order); got != "" && got != sender {
					t.Errorf("%v: cut off at %d the sender is %q", order, cut, got)
				}
			}
		}
	}
}

// No header makes the parser fail, whatever it holds.
func FuzzSenderOf(f *testing.F) {
	f.Add([]byte("l\x04\x00\x01\x00\x00\x00\x00\x01\x00\x00\x00\x0c\x00\x00\x00\x07\x01s\x00\x04\x00\x00\x00:1.2\x00"))
	f.Fuzz(func(t *testing.T, header []byte) {
		if len(header) < minHeader {
			return
		}
		senderOf(header, binary.LittleEndian)
		senderOf(header, binary.BigEndian)
	})
}

func TestBusSockets(t *testing.T) {
	for address, want := range map[string][]string{
		"unix:path=/run/dbus/system_bus_socket":                      {"/run/dbus/system_bus_socket"},
		"unix:path=/a%20b,guid=00ff;tcp:host=x;unix:abstract=/tmp/y": {"/a b", "@/tmp/y"},
	} {
		got, err := busSockets(address)
		if err != nil || len(got) != len(want) {
			t.Errorf("%s: %q, %v; want %q", address, got, err, want)
			continue
		}
		for i := range want {
			if got[i] != want[i] {
				t.Errorf("%s: %q, want %q", address, got, want)
			}
		}
	}
	for _, address := range []string{"", "tcp:host=localhost,port=1", "unix:path=%zz", "unix:tmpdir=/tmp"} {
		if got, err := busSockets(address); err == nil {
			t.Errorf("%q: %q, want an error", address, got)
		}
	}
}
