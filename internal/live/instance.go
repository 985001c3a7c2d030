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

// Unanswered returns a reason if no supervisor answers bind() of an instance that is up. It returns
// the zero Reason if a supervisor does, if none is needed, or if the caller may not see it.
// Connections are still served: the fault appears when the program binds again.
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

// Failing reports whether an instance is not up because its latest runs have failed.
func Failing(u systemd.UnitState) bool {
	return u.Failed() || u.ActiveState == "activating" && u.NRestarts > 0
}
