package main

import (
	"os"
	"path/filepath"
	"strconv"

	"github.com/unitgen/unitgen/internal/app"
)

// setRollout takes over how new code comes in and which share an instance gets.
func (c *command) setRollout(a *app.App, note func(string, error)) {
	o := c.options
	note("parallel", setValue(o, "parallel", &a.Parallel, o.parallel, func(text string) (int, error) {
		return readNumber("--parallel=", text)
	}))
	note("max-connections", setValue(o, "max-connections", &a.MaxConnections, o.maxConnections, func(text string) (int, error) {
		return readNumber("--max-connections=", text)
	}))
	note("program-port", setValue(o, "program-port", &a.ProgramPort, o.programPort, func(text string) (int, error) {
		return readNumber("--program-port=", text)
	}))
	note("soak", setTime(o, "soak", &a.Soak, o.soak))
	note("slow-start", setTime(o, "slow-start", &a.SlowStart, o.slowStart))
	note("weights", setValue(o, "weights", &a.Weights, o.weights, app.ParseWeights))
	note("pin", setValue(o, "pin", &a.Pin, o.pin, yesOrNo("--pin=")))
	note("user-per-instance", setValue(o, "user-per-instance", &a.UserPerInstance, o.userPerInstance, yesOrNo("--user-per-instance=")))
	note("messages", setValue(o, "messages", &a.Messages, o.messages, yesOrNo("--messages=")))
	note("shutdown-message", setValue(o, "shutdown-message", &a.ShutdownMessage, o.shutdownMessage, yesOrNo("--shutdown-message=")))
}

// yesOrNo reads an option that stands for yes where it has no value.
func yesOrNo(option string) func(text string) (bool, error) {
	return func(text string) (bool, error) {
		switch text {
		case "yes":
			return true, nil
		case "no":
			return false, nil
		}
		return false, inputf("", "%s must be yes or no, got %q", option, text)
	}
}

// setRestart takes over when instances are started anew.
func (c *command) setRestart(r *app.Restart, note func(string, error)) {
	o := c.options
	note("restart-delay", setTime(o, "restart-delay", &r.Delay, o.restartDelay))
	note("max-restarts", setValue(o, "max-restarts", &r.Max, o.maxRestarts, func(text string) (int, error) {
		return readNumber("--max-restarts=", text)
	}))
	if r.Max == 0 && o.given["max-restarts"] && !o.given["within"] {
		r.Within = 0 // which means nothing alone
	}
	note("within", setTime(o, "within", &r.Within, o.within))
	note("stop-exit-codes", setValue(o, "stop-exit-codes", &r.StopExitCodes, o.stopExitCodes, app.ParseExitCodes))
	note("watchdog", setTime(o, "watchdog", &r.Watchdog, o.watchdog))
	note("max-memory", setValue(o, "max-memory", &r.MaxMemory, o.maxMemory, func(text string) (app.Size, error) {
		return app.ParseSizeOption("--max-memory=", text)
	}))
	note("memory-reload", setValue(o, "memory-reload", &r.MemoryReload, o.memoryReload, func(text string) (app.Size, error) {
		return app.ParseSizeOption("--memory-reload=", text)
	}))
	note("reload-at", setValue(o, "reload-at", &r.ReloadAt, o.reloadAt, c.calendar))
	note("watch", setList(o, "watch", &r.Watch, o.watch, c.watched))
}

// watched reads --watch=. A file that is not there would be watched for all the same, but a slip of the pen would never be
// noticed.
func (c *command) watched(text string) (string, error) {
	path := filepath.Clean(c.absolute(text))
	if c.site.packaging {
		return path, nil
	}
	if _, err := os.Lstat(path); err != nil {
		return "", inputf("", "--watch= must name a file or directory that exists, got %q", text)
	}
	return path, nil
}

// calendar reads --reload-at=.
func (c *command) calendar(text string) (string, error) {
	if !c.env.isCalendar(text) {
		return "", inputf("systemd-analyze calendar 'Mon..Fri 04:00'", "--reload-at= must be a calendar expression (systemd.time(7)), got %q", text)
	}
	return text, nil
}

// readNumber reads a positive number. With an error it is 1, which gives no cause for another one.
func readNumber(option, text string) (int, error) {
	n, err := strconv.Atoi(text)
	if err != nil || n < 1 {
		return 1, inputf("", "%s must be a positive number, got %q", option, text)
	}
	return n, nil
}

// setValue replaces a setting by the value of an option; an empty one takes it back to its default.
func setValue[T any](o *options, option string, value *T, text string, parse func(string) (T, error)) (err error) {
	if !o.given[option] {
		return nil
	}
	var none T
	*value = none
	if text == "" {
		return nil
	}
	*value, err = parse(text)
	return err
}
