package live

import (
	"errors"
	"os"
	"strconv"

	"github.com/unitgen/unitgen/internal/app"
	"github.com/unitgen/unitgen/internal/bindnotify"
	"github.com/unitgen/unitgen/internal/cgroup"
	"github.com/unitgen/unitgen/internal/explain"
	"github.com/unitgen/unitgen/internal/systemd"
)

// Unanswered says so if nothing answers bind() of an instance that is up; the zero Reason where something does, or none is wanted, or
// the caller may not see it. Connections go on without: what is missing is noticed when the program binds again.
func Unanswered(a app.App, u systemd.UnitState) explain.Reason {
	if !a.BindAnswered() || u.ActiveState != "active" || u.ControlGroup == "" || u.MainPID == 0 {
		return explain.Reason{}
	}
	if _, err := os.ReadFile("/proc/" + strconv.Itoa(u.MainPID) + "/cmdline"); err != nil {
		return explain.Reason{} // hidepid=
	}
	if _, err := bindnotify.Find(cgroup.Dir(u.ControlGroup)); !errors.Is(err, bindnotify.ErrNone) {
		return explain.Reason{}
	}
	manager := ""
	if a.UserUnits {
		manager = "--user "
	}
	return explain.Reason{What: "nothing answers the program's bind(): the program keeps serving, but could not open its port again",
		Hint: "systemctl " + manager + "restart " + a.Name.Instance(instanceNumber(a, u))}
}

func instanceNumber(a app.App, u systemd.UnitState) int {
	unit, _ := a.Name.ParseUnit(u.Name)
	return unit.Instance
}

// Failing says whether an instance is not up as its latest runs have failed.
func Failing(u systemd.UnitState) bool {
	return u.Failed() || u.ActiveState == "activating" && u.NRestarts > 0
}
