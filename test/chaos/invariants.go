package main

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/unitgen/unitgen/internal/control"
)

// invariant is what holds before a step, and again some time after it.
type invariant struct {
	name     string
	holds    func(*world, *look) error
	thorough bool // it needs a thorough look
	final    bool // if it does not hold, waiting does not help
}

var invariants = []invariant{
	{name: "no request is lost", holds: nothingLost, final: true},
	{name: "PID 1 has no job", holds: noJobs},
	{name: "units are as they were", holds: units},
	{name: "status tells the truth", holds: states},
	{name: "FD stores are as they were", holds: stores},
	{name: "descriptors and memory are as they were", holds: usages},
	{name: "every instance is on the ring, and nobody else", holds: ring, thorough: true},
	{name: "doctor finds nothing", holds: doctor, thorough: true},
	{name: "no shim fails by itself, no drain goes on to its time-out", holds: journal, thorough: true, final: true},
	{name: "no request is lost", holds: nothingLost, thorough: true, final: true}, // of those made meanwhile
}

// final is the error of an invariant that no waiting mends.
type final struct{ error }

// judge returns what does not hold.
func (w *world) judge(l *look, thorough bool) error {
	var errs []error
	for _, i := range invariants {
		if i.thorough != thorough {
			continue
		}
		err := i.holds(w, l)
		if err == nil {
			continue
		}
		err = fmt.Errorf("%s: not so: %w", i.name, err)
		if i.final {
			return final{err}
		}
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

func nothingLost(w *world, _ *look) error {
	lost := w.ledger.lost()
	if len(lost) == 0 {
		return nil
	}
	const shown = 10
	var lines []string
	for _, f := range lost[:min(shown, len(lost))] {
		lines = append(lines, f.String())
	}
	return fmt.Errorf("%d lost:\n\t%s", len(lost), strings.Join(lines, "\n\t"))
}

func noJobs(_ *world, l *look) error {
	if l.jobs = strings.TrimSpace(l.jobs); l.jobs != "" && !strings.HasPrefix(l.jobs, "No jobs") {
		return errors.New(l.jobs)
	}
	return nil
}

// units compares the units that PID 1 has of each app, and their states, with those of the first
// look; there they are checked by themselves. One that is not loaded any more was inactive. An
// instance has joined with all others or later, by a unit of its own; the note says that it has.
func units(w *world, l *look) error {
	var errs []error
	for _, name := range w.honest {
		a := w.apps[name]
		expected := map[string]bool{a.shim(): true}
		for i := 1; i <= instances; i++ {
			expected[a.instance(i)] = true
		}
		for unit, p := range l.units[name] {
			service := unit == a.shim() || strings.Contains(unit, "@") && strings.HasSuffix(unit, ".service") && !strings.Contains(unit, "-")
			switch {
			case p["ActiveState"] == "failed":
				errs = append(errs, fmt.Errorf("%s has failed (%s)", unit, p["Result"]))
			case service && expected[unit] != (p["ActiveState"] == "active"):
				errs = append(errs, fmt.Errorf("%s is %s (%s)", unit, p["ActiveState"], p["SubState"]))
			case strings.Contains(unit, "-join@") && (p["ActiveState"] == "active" || p["ActiveState"] == "inactive"):
			case !service && l.calm != nil && p["ActiveState"] != state(l.calm.units[name][unit]):
				errs = append(errs, fmt.Errorf("%s is %s, and was %s", unit, p["ActiveState"], state(l.calm.units[name][unit])))
			}
			delete(expected, unit)
		}
		for unit := range expected {
			errs = append(errs, fmt.Errorf("%s is not there", unit))
		}
		var joined []string
		for i := 1; i <= instances; i++ {
			joined = append(joined, fmt.Sprintf("/run/unitgen/%s/joined/%d/noted", name, i))
		}
		notes := slices.DeleteFunc(strings.Fields(l.joined), func(path string) bool { return !strings.HasPrefix(path, "/run/unitgen/"+name+"/") })
		if slices.Sort(notes); !slices.Equal(notes, joined) {
			errs = append(errs, fmt.Errorf("%q have joined, want %q", notes, joined))
		}
	}
	return errors.Join(errs...)
}

// state is that of a unit, nil for one that PID 1 has not loaded.
func state(p map[string]string) string {
	if p == nil {
		return "inactive"
	}
	return p["ActiveState"]
}

// states compares what the shim says, on its control socket and to PID 1, with what PID 1 knows.
func states(w *world, l *look) error {
	var errs []error
	for _, name := range w.names {
		a, status := w.apps[name], l.status[name]
		for i := 1; i <= instances; i++ {
			if a.hostile && i == hostileInstance {
				continue
			}
			at := slices.IndexFunc(status.Instances, func(in control.InstanceStatus) bool { return in.Instance == i })
			pid := l.units[name][a.instance(i)]["MainPID"]
			if at < 0 || status.Instances[at].State != "up" || strconv.Itoa(status.Instances[at].PID) != pid {
				errs = append(errs, fmt.Errorf("status of %s has %+v, want instance %d up with process %s", name, status.Instances, i, pid))
			}
		}
		line := l.units[name][a.shim()]["StatusText"]
		if want := fmt.Sprintf("%d/%d instances up", instances, instances); !a.hostile && (!strings.Contains(line, want) || len(status.Instances) != instances) {
			errs = append(errs, fmt.Errorf("status line of %s is %q with %d instances, want %q", name, line, len(status.Instances), want))
		}
	}
	return errors.Join(errs...)
}

func stores(w *world, l *look) error {
	var errs []error
	for _, name := range w.honest {
		now := l.units[name][w.apps[name].shim()]["NFileDescriptorStore"]
		if l.calm == nil {
			continue
		}
		was := l.calm.units[name][w.apps[name].shim()]["NFileDescriptorStore"]
		n, _ := strconv.Atoi(was)
		// At the first move of a queue the shim stores a file of what was moved, and keeps it.
		if now != was && now != strconv.Itoa(n+1) {
			errs = append(errs, fmt.Errorf("PID 1 keeps %s descriptors of %s, and kept %s", now, name, was))
		}
	}
	return errors.Join(errs...)
}

// What a shim or PID 1 may have more than at first: what is open for a moment, and memory that was
// used and is kept.
const (
	moreFiles    = 12
	moreMemory   = 24 << 10 // of a shim, in kilobytes
	moreInitSize = 16 << 10
)

func usages(w *world, l *look) error {
	if l.calm == nil {
		return nil
	}
	var errs []error
	compare := func(what string, now, was usage, memory int) {
		if now.files > was.files+moreFiles || now.kilobytes > was.kilobytes+memory {
			errs = append(errs, fmt.Errorf("%s has %d descriptors and %d kB, and had %d and %d kB", what, now.files, now.kilobytes, was.files, was.kilobytes))
		}
	}
	compare("PID 1", l.init, l.calm.init, moreInitSize)
	for _, name := range w.names {
		compare("shim of "+name, l.shims[name], l.calm.shims[name], moreMemory)
	}
	return errors.Join(errs...)
}

func ring(w *world, l *look) error {
	var errs []error
	for _, name := range w.names {
		a := w.apps[name]
		want := map[string]bool{}
		for i := 1; i <= instances; i++ {
			if !a.hostile || i != hostileInstance {
				want[l.units[name][a.instance(i)]["MainPID"]] = true
			}
		}
		for _, pid := range slices.Sorted(maps.Keys(want)) {
			if l.ring[name][pid] == 0 {
				errs = append(errs, fmt.Errorf("process %s of %s answers nobody; answers by process: %v", pid, name, l.ring[name]))
			}
		}
		for pid := range l.ring[name] {
			if !want[pid] && !a.hostile {
				errs = append(errs, fmt.Errorf("process %s answers for %s and is none of its instances", pid, name))
			}
		}
	}
	return errors.Join(errs...)
}

func doctor(w *world, l *look) error {
	var errs []error
	for _, name := range w.honest {
		if l.doctor[name] != "" {
			errs = append(errs, errors.New(l.doctor[name]))
		}
	}
	return errors.Join(errs...)
}

func journal(_ *world, l *look) error {
	if l.log != "" {
		return errors.New(l.log)
	}
	return nil
}
