//go:build integration

package integration

import (
	"context"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/unitgen/unitgen/test/apps"
)

// testUnloaded counts what is asked about an app that is neither enabled nor running: PID 1 loads all
// its units for each question and unloads them again, unless somebody keeps them.
func testUnloaded(t *testing.T, s *apps.System) {
	a := newApp(t, s, "unloaded")
	a.monitor()
	for _, words := range [][]string{{"status", a.Name}, {"doctor", a.Name}, {a.Name, "--soak=1s"}, {"stop", a.Name}} {
		before := len(a.asked())
		a.MustExec(t, append([]string{"unitgen"}, words...)...)
		lone, kept := 0, 0
		for _, call := range a.asked()[before:] {
			switch call[1] {
			case "Ref":
				kept++
			case "Unref":
				kept--
			default:
				if kept == 0 {
					lone++
				}
			}
		}
		if lone > 0 {
			t.Errorf("unitgen %s asks %d times about units that nobody keeps", strings.Join(words, " "), lone)
		}
	}
}

// callFile has the calls of methods of units, by whomever.
const callFile = "/run/unit-calls"

// monitor begins to note the calls of methods of units.
func (a *testApp) monitor() {
	a.T.Helper()
	unit := a.Name + "-monitor.service"
	a.T.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), apps.Limit) // the test's own has ended
		defer cancel()
		if out, err := a.Exec(ctx, "systemctl", "stop", unit); err != nil || out.Status != 0 {
			a.T.Errorf("stop %s: %v, %v", unit, out, err)
		}
	})
	a.MustExec(a.T, "systemd-run", "--quiet", "--unit="+unit, "-p", "StandardOutput=truncate:"+callFile,
		"dbus-monitor", "--system", "type='method_call',path_namespace='/org/freedesktop/systemd1/unit'")
	a.mark()
}

// mark returns when the monitor hears, and has noted all calls before: it asks PID 1 about a service
// with a name of its own until that is in the file.
func (a *testApp) mark() {
	a.T.Helper()
	const script = `until grep -qs "unit/$1_2e" ` + callFile + `; do
			busctl get-property org.freedesktop.systemd1 "/org/freedesktop/systemd1/unit/$1_2eservice" org.freedesktop.systemd1.Unit Id
		done`
	name := "mark" + strconv.FormatInt(time.Now().UnixNano(), 10)
	a.MustExec(a.T, "timeout", strconv.Itoa(int(apps.Limit.Seconds())), "sh", "-c", script, "sh", name)
}

// asked are the calls so far about units of the app, each with its method.
func (a *testApp) asked() [][]string {
	a.T.Helper()
	a.mark()
	calls := regexp.MustCompile(`(?m)^method call .*path=/org/freedesktop/systemd1/unit/` + a.Name + `_\S+; .*member=(\S+)$`)
	return calls.FindAllStringSubmatch(a.MustExec(a.T, "cat", callFile), -1)
}
