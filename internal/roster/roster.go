// Package roster gathers what list, status and top show of apps: their settings on disk, what PID
// 1, the control groups and the balancers know of them, and why an instance is not up.
//
// A look at all apps is one sweep (package survey). A reason costs questions about one instance,
// so that only status asks for reasons, of at most explain.MaxReasons instances.
package roster

import (
	"context"
	"log/slog"

	"github.com/unitgen/unitgen/internal/app"
	"github.com/unitgen/unitgen/internal/live"
	"github.com/unitgen/unitgen/internal/plan"
	"github.com/unitgen/unitgen/internal/survey"
	"github.com/unitgen/unitgen/internal/view"
)

// Apps describes the apps of a site as they are on disk, whoever has installed them, by name. An
// app whose settings cannot be read is among them: it may be running.
func Apps(site plan.Site) ([]*view.App, error) {
	found, err := site.Apps()
	if err != nil {
		return nil, err
	}
	apps := []*view.App{} // "[]" as JSON
	for _, f := range found {
		if f.App == nil {
			apps = append(apps, &view.App{App: f.Name, Listen: []string{}, State: "unreadable"})
			continue
		}
		apps = append(apps, &view.App{App: f.Name, Instances: len(site.Instances(f.Name)), Listen: plan.ListenTexts(f.App.Listen), Path: f.App.DataPath()})
	}
	return apps, nil
}

// Fill looks at apps, and takes over what it has seen of them. Rates are averages since the look
// before, if there was one.
func Fill(ctx context.Context, m *live.Manager, apps []*view.App, before *survey.Look) (*survey.Look, error) {
	names := make([]app.Name, len(apps))
	for i, a := range apps {
		names[i] = a.App
	}
	look, err := lookAt(ctx, m, survey.Starts, names)
	if err != nil {
		return nil, err
	}
	for _, a := range apps {
		a.Fill(look, before)
	}
	return look, nil
}

// lookAt looks at apps; at none without a question to PID 1.
func lookAt(ctx context.Context, m *live.Manager, depth survey.Depth, apps []app.Name) (*survey.Look, error) {
	look := new(survey.Look)
	if len(apps) > 0 {
		source := survey.Source{RuntimeDir: m.RuntimeDir(), Depth: depth, Log: slog.New(slog.DiscardHandler), Ask: m.Ask, Apps: apps}
		var err error
		if look.Apps, err = source.Look(ctx, m.Conn); err != nil {
			return nil, err
		}
	}
	look.At = m.Now()
	return look, nil
}
