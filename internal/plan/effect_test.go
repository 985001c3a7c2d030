package plan

import (
	"strings"
	"testing"
	"testing/fstest"
	"time"

	"github.com/unitgen/unitgen/internal/app"
	"github.com/unitgen/unitgen/internal/balance"
	"github.com/unitgen/unitgen/templates"
)

// What a change of a running app needs, by the units that it changes.
func TestEffect(t *testing.T) {
	base := app.App{Name: "app", Command: []string{"/opt/app/server"}, Listen: []app.Listen{{Port: 3000}}, SystemdVersion: 257}
	for name, test := range map[string]struct {
		change func(*app.App)
		want   Effect
	}{
		"nothing":           {func(a *app.App) {}, EffectNone},
		"command":           {func(a *app.App) { a.Command = []string{"/opt/app/server", "-v"} }, EffectReload},
		"environment":       {func(a *app.App) { a.Environment = []app.Assignment{{Key: "A"}} }, EffectReload},
		"property":          {func(a *app.App) { a.Properties = []app.Property{{Key: "Nice", Value: "5"}} }, EffectReload},
		"memory limit":      {func(a *app.App) { a.Restart.MaxMemory = 1 << 30 }, EffectReload},
		"pin":               {func(a *app.App) { a.Pin = true }, EffectReload},
		"weights":           {func(a *app.App) { a.Weights = []int{2} }, EffectReload},
		"idle":              {func(a *app.App) { a.IdleExit = time.Hour }, EffectReload},
		"first":             {func(a *app.App) { a.Strategy = balance.First }, EffectReload},
		"least-connections": {func(a *app.App) { a.Strategy = balance.LeastConnections }, EffectRestart},
		"messages":          {func(a *app.App) { a.Messages = true }, EffectRestart},
		"user":              {func(a *app.App) { a.User = "www-data" }, EffectReload},
		"user per instance": {func(a *app.App) { a.UserPerInstance = true }, EffectReload},
		"soak":              {func(a *app.App) { a.Soak = time.Second }, EffectNone},
		"restart delay":     {func(a *app.App) { a.Restart.Delay = time.Second }, EffectNone},
		"max restarts":      {func(a *app.App) { a.Restart.Max = 3 }, EffectNone},
		"reload at":         {func(a *app.App) { a.Restart.ReloadAt = "daily" }, EffectNone},
		"agent":             {func(a *app.App) { a.Agent.Port = 9999 }, EffectNone},
		"metrics":           {func(a *app.App) { a.Metrics.Port = 9464 }, EffectNone},
		"memory reload":     {func(a *app.App) { a.Restart.MemoryReload = 1 << 30 }, EffectNone},
	} {
		changed := base
		test.change(&changed)
		p := onDisk(&base, texts(t, base)).compare(changed, rendered(t, changed), 1)
		if got := p.Effect(); got != test.want {
			t.Errorf("%s: got %q, want %q", name, got, test.want)
		}
		// And back.
		back := onDisk(&changed, texts(t, changed)).compare(base, rendered(t, base), 1)
		want := test.want
		if want == EffectRestart && name != "messages" {
			want = EffectReload // a capability less
		}
		if got := back.Effect(); got != want {
			t.Errorf("%s, back: got %q, want %q", name, got, want)
		}
	}
	// A directory that changes hands must not do so under instances of the user before.
	owner := base
	owner.Properties = []app.Property{{Key: "StateDirectory", Value: "app"}}
	other := owner
	other.User = "www-data"
	p := onDisk(&owner, texts(t, owner)).compare(other, rendered(t, other), 1)
	if got := p.Effect(); got != EffectRestart {
		t.Errorf("another user with a directory: got %q, want %q", got, EffectRestart)
	}
	before := texts(t, owner) // as it was before users were named
	before["app@.service"] = strings.Replace(before["app@.service"], "User=ug-app\n", "", 1)
	p = onDisk(&owner, before).compare(owner, rendered(t, owner), 1)
	if got := p.Effect(); got != EffectRestart {
		t.Errorf("first name of a dynamic user: got %q, want %q", got, EffectRestart)
	}
	socket := texts(t, base)
	socket["app@.socket"] = strings.Replace(socket["app@.socket"], "ReusePort=yes", "ReusePort=yes\nBacklog=5", 1)
	p0 := onDisk(&base, socket).compare(base, rendered(t, base), 1)
	if got := p0.Effect().Command("systemctl ", "app"); got != "systemctl stop app && systemctl start app" {
		t.Errorf("sockets of another version: got %q", got)
	}
	single := texts(t, base) // as it was before one command gave all listeners to the balancer
	delete(single, "app-join.service")
	single["app-join@.service"] = strings.ReplaceAll(single["app-join@.service"], "RuntimeDirectory", "#")
	single["app@.socket"] = strings.NewReplacer("RuntimeDirectory=", "#", "Wants=", "#").Replace(single["app@.socket"])
	p = onDisk(&base, single).compare(base, rendered(t, base), 1)
	if got := p.Effect(); got != EffectNone || len(p.Changes) != 3 {
		t.Errorf("units of before app-join.service: got %q for %d changes, want none for 3", got, len(p.Changes))
	}
	if p.Relisted() != 0 {
		t.Error("a change of units counts as one of instances")
	}
	enabled := onDisk(&base, texts(t, base))
	enabled.files["app-join.service"] = strings.Replace(enabled.files["app-join.service"], "RemainAfterExit=yes\n", "RemainAfterExit=yes\nSockets=app@7.socket\n", 1)
	if p = enabled.compare(base, rendered(t, base), 1); p.Effect() != EffectNone || len(p.Changes) != 1 || p.Relisted() != 1 {
		t.Errorf("an instance less: %d changes of which %d are of instances, effect %q", len(p.Changes), p.Relisted(), p.Effect())
	}
	older := texts(t, base)
	older["app.service"] = "# Generated by unitgen\n[Service]\nExecStart=/old/lbshim serve app\n"
	p = onDisk(&base, older).compare(base, rendered(t, base), 1)
	if got := p.Effect(); got != EffectRestart {
		t.Errorf("app.service of another version: got %q", got)
	}
}

// onDisk is an app of one instance.
func onDisk(a *app.App, files map[string]string) *Disk {
	return &Disk{App: a, Instances: []int{1}, site: Site{Dir: "/etc/systemd/system"}, name: a.Name, files: files}
}

func rendered(t *testing.T, a app.App) []templates.File {
	t.Helper()
	files, err := templates.Render(a, templates.Paths{Lbshim: "/usr/lib/unitgen/lbshim"})
	if err != nil {
		t.Fatal(err)
	}
	if a.Pin {
		f, err := templates.PinFS(a, 1, 0, fstest.MapFS{})
		if err != nil {
			t.Fatal(err)
		}
		files = append(files, f)
	}
	return files
}

func texts(t *testing.T, a app.App) map[string]string {
	all := make(map[string]string)
	for _, f := range rendered(t, a) {
		all[f.Name] = f.Text
	}
	return all
}
