package systemd

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/godbus/dbus/v5"

	"github.com/unitgen/unitgen/internal/systemd/systemdtest"
)

// giveJob gives unit a job of a type, quietly.
func giveJob(m *systemdtest.Manager, unit, jobType string) {
	path := managerPath + "/job/7"
	m.SetProperties(UnitPath(unit), map[string]any{"ActiveState": "deactivating", "Job": struct {
		ID   uint32
		Path dbus.ObjectPath
	}{7, path}})
	m.SetProperties(path, map[string]any{"JobType": jobType})
}

func TestAwaitStop(t *testing.T) {
	b := systemdtest.NewBus(t)
	m := systemdtest.NewManager(t, b)
	c, err := Dial(testContext(t), endpoint(b))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	const unit = "app@2.service"
	await := func(within time.Duration) error {
		ctx, cancel := context.WithTimeout(testContext(t), within)
		defer cancel()
		return c.AwaitStop(ctx, unit)
	}
	if err := await(50 * time.Millisecond); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("no job: got %v", err)
	}
	giveJob(m, unit, "start")
	if err := await(50 * time.Millisecond); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("the job that started it: got %v", err)
	}
	for _, jobType := range []string{"stop", "restart"} {
		giveJob(m, unit, jobType)
		if err := await(10 * time.Second); err != nil {
			t.Errorf("job %s is there: %v", jobType, err)
		}
	}
	// What comes while it waits: a job of another unit, a new job to start this one, then a new job
	// that stops it, or a job that turns into one that does.
	for name, come := range map[string]func(){
		"new": func() {
			giveJob(m, unit, "stop")
			m.Emit(managerPath, managerIf+".JobNew", uint32(8), managerPath+"/job/8", unit)
		},
		"turned": func() {
			giveJob(m, unit, "restart")
			m.Emit(managerPath+"/job/7", propertyIf+".PropertiesChanged", jobIf, map[string]dbus.Variant{"State": dbus.MakeVariant("waiting")}, []string{})
		},
	} {
		giveJob(m, unit, "start")
		timer := time.AfterFunc(50*time.Millisecond, func() {
			m.Emit(managerPath, managerIf+".JobNew", uint32(9), managerPath+"/job/9", "other.service")
			m.Emit(managerPath, managerIf+".JobNew", uint32(7), managerPath+"/job/7", unit)
			come()
		})
		if err := await(10 * time.Second); err != nil {
			t.Errorf("job is %s: %v", name, err)
		}
		timer.Stop()
	}
}
