package live

import (
	"errors"
	"io/fs"
	"os"
	"testing"
	"time"

	"github.com/unitgen/unitgen/internal/app"
	"github.com/unitgen/unitgen/internal/plan"
)

// What the user reads of each step.
func TestEvents(t *testing.T) {
	listen := []app.Listen{{Port: 3000}}
	for want, e := range map[string]Event{
		"Stopping web, as its listeners change.":                                        {Step: Stopping, App: "web"},
		"Created /d/web.service.":                                                       {Step: Wrote, Change: plan.Change{Path: "/d/web.service", Text: "x"}},
		"Removed /d/web.service.":                                                       {Step: Wrote, Change: plan.Change{Path: "/d/web.service", Old: "x"}},
		"Reloaded systemd in 12ms.":                                                     {Step: Reloaded, Took: 12*time.Millisecond + 3*time.Microsecond},
		"Started web@2, web@3.":                                                         {Step: Started, App: "web", Instances: []int{2, 3}},
		"web: 2/2 instances up at port 3000 (steer)":                                    {Step: Ready, App: "web", Instances: []int{1, 2}, Listen: listen, Path: app.PathSteer},
		"The app is not started. Start with: systemctl enable --now web":                {Step: NotStarted, App: "web", Command: "systemctl enable --now web"},
		"Your units end when you log out. Keep them with: loginctl enable-linger alice": {Step: EndsAtLogout, Command: "loginctl enable-linger alice"},
		"web is up to date, nothing was written.":                                       Written(&plan.Plan{App: app.App{Name: "web"}})[0],
		"Running instances keep the old settings. Apply with: systemctl reload web":     {Step: OldSettings, Command: "systemctl reload web"},
	} {
		if got := e.String(); got != want {
			t.Errorf("step %d says %q, want %q", e.Step, got, want)
		}
	}
}

// An app that an earlier run has stopped is known until its note is removed, which the removal of
// the app does too.
func TestStoppedNote(t *testing.T) {
	root := t.TempDir()
	if err := os.MkdirAll(root+"/run/unitgen/web", 0o755); err != nil {
		t.Fatal(err)
	}
	m := &Manager{Options: Options{Site: plan.Site{Root: root}, Getenv: func(string) string { return "" }}}
	a := &application{Manager: m, name: "web", state: State{Serving: true, Open: true}}
	if unit := m.wasStopped("web"); unit != "" {
		t.Errorf("nothing is stopped, got %q", unit)
	}
	if err := a.noteStopped(); err != nil {
		t.Fatal(err)
	}
	if unit := m.wasStopped("web"); unit != "web.service" {
		t.Errorf("stopped: %q, want web.service", unit)
	}
	if err := m.removeRuntime("web"); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(m.stoppedNote("web")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the note is there after the removal: %v", err)
	}
	if _, err := os.Stat(m.appDir("web")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the directory is there after the removal: %v", err)
	}
}
