package templates

import (
	"strconv"
	"strings"

	"github.com/unitgen/unitgen/internal/app"
)

// restart is what the templates print of app.Restart. Empty is what they leave out.
type restart struct {
	Delay         string
	BackOff       string // options of the command by which delays grow, each with a blank before it; empty: they do not
	Burst         int    // StartLimitBurst=
	Interval      string
	StopExitCodes string
	Watchdog      string
	MaxMemory     string
	MemoryReload  string
	ReloadAt      string
	Watch         []string
	Cause         string // what starts a rollout, in words
}

func decideRestart(a app.App) restart {
	r := a.Restart
	v := restart{
		Delay:         app.FormatTimeSpan(r.DelayOrDefault()),
		StopExitCodes: strings.Join(numbers(r.StopExitCodes), " "),
		ReloadAt:      r.ReloadAt,
		Cause:         "the clock says",
	}
	v.BackOff = " " + app.QuoteWord("--restart-delay="+v.Delay)
	if codes := numbers(r.StopExitCodes); len(codes) > 0 {
		v.BackOff += " --stop-exit-codes=" + strings.Join(codes, ",")
	}
	if r.Max > 0 {
		// The limit is of starts, and the first start is not a restart.
		v.Burst, v.Interval = r.Max+1, app.FormatTimeSpan(r.WithinOrDefault())
	}
	if r.Watchdog > 0 {
		v.Watchdog = app.FormatTimeSpan(r.Watchdog)
	}
	if r.MaxMemory > 0 {
		v.MaxMemory = r.MaxMemory.String()
	}
	if r.MemoryReload > 0 {
		v.MemoryReload = r.MemoryReload.String()
	}
	for _, path := range r.Watch {
		v.Watch = append(v.Watch, app.RawPath(path))
	}
	switch {
	case len(r.Watch) > 0 && r.ReloadAt != "":
		v.Cause = "the clock or a changed file says"
	case len(r.Watch) > 0:
		v.Cause = "a changed file says"
	}
	return v
}

func numbers(list []int) []string {
	words := make([]string, len(list))
	for i, n := range list {
		words[i] = strconv.Itoa(n)
	}
	return words
}
