package app

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"
)

// write adds the settings of r that are set.
func (r Restart) write(t *settingsText) {
	t.timeSpan("RestartDelaySec", r.Delay)
	if r.Max > 0 {
		t.line("MaxRestarts", strconv.Itoa(r.Max))
	}
	t.timeSpan("WithinSec", r.Within)
	t.optional("StopExitCodes", joinNumbers(r.StopExitCodes))
	t.timeSpan("WatchdogSec", r.Watchdog)
	if r.MaxMemory > 0 {
		t.line("MaxMemory", r.MaxMemory.String())
	}
	if r.MemoryReload > 0 {
		t.line("MemoryReload", r.MemoryReload.String())
	}
	t.optional("ReloadAt", r.ReloadAt)
	for _, path := range r.Watch {
		t.line("Watch", path)
	}
}

// parseWord reads the keys that are one word.
func (r *Restart) parseWord(key, word string) (err error) {
	switch key {
	case "MaxRestarts":
		r.Max, err = strconv.Atoi(word)
		if err != nil || r.Max < 1 {
			return fmt.Errorf("%q is not a number of restarts", word)
		}
	case "StopExitCodes":
		r.StopExitCodes, err = ParseExitCodes(word)
	case "MaxMemory":
		r.MaxMemory, err = parsePositive(word)
	case "MemoryReload":
		r.MemoryReload, err = parsePositive(word)
	case "ReloadAt":
		r.ReloadAt, err = notEmpty(word)
	case "Watch":
		word, err = notEmpty(word)
		r.Watch = append(r.Watch, word)
	default:
		return errors.New("unknown key")
	}
	return err
}

func parsePositive(word string) (Size, error) {
	s, err := ParseSize(word)
	if err == nil && s == 0 {
		err = errors.New("it must not be 0")
	}
	return s, err
}

// ParseExitCodes reads the value of --stop-exit-codes=: numbers from 0 to 255 with commas between them, none twice.
func ParseExitCodes(s string) ([]int, error) {
	return parseNumbers("--stop-exit-codes=", s, 0, 255, func(codes []int) bool {
		return len(slices.Compact(slices.Sorted(slices.Values(codes)))) == len(codes)
	})
}

// ParseWeights reads the value of --weights=: numbers from 1 to 256 with commas between them, by instance number.
func ParseWeights(s string) ([]int, error) {
	return parseNumbers("--weights=", s, MinWeight, MaxWeight, func(weights []int) bool { return len(weights) <= MaxInstances })
}

// MinWeight and MaxWeight bound the share of an instance, as in package balance, which depends on nothing.
const (
	MinWeight = 1
	MaxWeight = 256
)

func parseNumbers(option, s string, low, high int, allowed func([]int) bool) ([]int, error) {
	var numbers []int
	for word := range strings.SplitSeq(s, ",") {
		n, err := strconv.Atoi(word)
		if err != nil || strconv.Itoa(n) != word || n < low || n > high {
			return nil, inputErrorf("", "%s must be numbers from %d to %d with commas between them, got %q", option, low, high, shorten(s))
		}
		numbers = append(numbers, n)
	}
	if !allowed(numbers) {
		return nil, inputErrorf("", "%s has too many numbers, or one twice: %q", option, shorten(s))
	}
	return numbers, nil
}

func joinNumbers(numbers []int) string {
	words := make([]string, len(numbers))
	for i, n := range numbers {
		words[i] = strconv.Itoa(n)
	}
	return strings.Join(words, ",")
}

// Weight is the share of instance i.
func (a App) Weight(i int) int {
	if i < 1 || i > len(a.Weights) {
		return MinWeight
	}
	return a.Weights[i-1]
}

// WeightList writes the weights as --weights= takes them; empty if there are none.
func (a App) WeightList() string { return joinNumbers(a.Weights) }

// DelayOrDefault is how long the first automatic restart waits.
func (r Restart) DelayOrDefault() time.Duration { return cmp.Or(r.Delay, DefaultRestartDelay) }

// WithinOrDefault is the time in which Max counts.
func (r Restart) WithinOrDefault() time.Duration { return cmp.Or(r.Within, DefaultWithin) }

// Units lists the unit files of the app, sorted: the triggers only where its settings ask for them.
func (a App) Units() []string {
	memory, at, watch := a.Restart.MemoryReload > 0, a.Restart.ReloadAt != "", len(a.Restart.Watch) > 0
	return slices.DeleteFunc(a.Name.Units(), func(unit string) bool {
		switch unit {
		case a.Name.ChannelSocket():
			return a.Kind != KindNode && !a.Messages
		case a.Name.MemoryService(), a.Name.MemoryTimer():
			return !memory
		case a.Name.ReloadTimer():
			return !at
		case a.Name.ReloadPath():
			return !watch
		case a.Name.ReloadService():
			return !at && !watch
		}
		return false
	})
}

// Triggers lists those of Name.Triggers that the settings ask for.
func (a App) Triggers() []string {
	has := a.Units()
	return slices.DeleteFunc(a.Name.Triggers(), func(unit string) bool { return !slices.Contains(has, unit) })
}

// checkRestart checks the settings of Restart, each against the properties that would say the same too.
func (a App) checkRestart(found *inputErrors) {
	r := a.Restart
	for _, span := range []struct {
		option string
		d      time.Duration
	}{{"--restart-delay=", r.Delay}, {"--within=", r.Within}, {"--watchdog=", r.Watchdog}} {
		if span.d != 0 {
			found.add(checkTimeout(span.option, span.d))
		}
	}
	const maxRestarts = 1 << 20 // the limit is an unsigned int, and one more start is the first
	if r.Max < 0 || r.Max > maxRestarts {
		found.addf("", "--max-restarts= must be between 1 and %d, got %d", maxRestarts, r.Max)
	}
	if r.Within != 0 && r.Max == 0 {
		found.addf("--max-restarts=5", "--within= needs --max-restarts=, the number of restarts in that time")
	}
	if len(r.StopExitCodes) > 0 {
		_, err := ParseExitCodes(joinNumbers(r.StopExitCodes))
		found.add(err)
	}
	if r.Watchdog != 0 && a.ReadyOrDefault() != ReadyNotify {
		found.addf("--ready=notify", "--watchdog= needs --ready=notify: only a program that talks to systemd can tell it that it is alive (WATCHDOG=1, sd_notify(3))")
	}
	a.checkMemory(found)
	if r.ReloadAt != "" {
		found.add(checkCalendar(r.ReloadAt))
	}
	for i, path := range r.Watch {
		if problem := rawPathProblem(path); problem != "" {
			found.addf("", "--watch= %s, got %q", problem, path)
		} else if slices.Contains(r.Watch[:i], path) {
			found.addf("", "--watch=%s is given twice", path)
		}
	}
	for _, own := range []struct {
		key, option string
		set         bool
	}{
		{"RestartSec", "--restart-delay=", r.Delay != 0}, {"RestartPreventExitStatus", "--stop-exit-codes=", len(r.StopExitCodes) > 0},
		{"WatchdogSec", "--watchdog=", r.Watchdog != 0}, {"MemoryMax", "--max-memory=", r.MaxMemory != 0},
		{"CPUAffinity", "--pin", a.Pin},
	} {
		if _, twice := a.Property(own.key); twice && own.set {
			found.addf("", "%s and --property=%s= say the same; one must go", own.option, own.key)
		}
	}
}

func (a App) checkMemory(found *inputErrors) {
	r := a.Restart
	if r.MaxMemory != 0 {
		found.add(checkSize("--max-memory=", r.MaxMemory))
	}
	if r.MemoryReload == 0 {
		return
	}
	found.add(checkSize("--memory-reload=", r.MemoryReload))
	if r.MaxMemory != 0 && r.MemoryReload >= r.MaxMemory {
		found.addf("", "--memory-reload=%s must be below --max-memory=%s, where the kernel kills without a drain", r.MemoryReload, r.MaxMemory)
	}
}

// checkCalendar lets through what can be a calendar expression (systemd.time(7)); systemd-analyze calendar knows all of
// its grammar. Nothing is left that a unit file would read in another way.
func checkCalendar(s string) error {
	const others = " *,./:~+-_" // "_", "+" and "/" stand in time zones
	bad := strings.ContainsFunc(s, func(r rune) bool {
		return (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') && (r < '0' || r > '9') && !strings.ContainsRune(others, r)
	})
	if bad || s != strings.TrimSpace(s) || len(s) > 255 {
		return inputErrorf("--reload-at='*-*-* 04:00'", "--reload-at= must be a calendar expression (systemd.time(7)), got %q", shorten(s))
	}
	return nil
}

// checkShares checks the weights, which mean nothing where one instance takes all.
func (a App) checkShares(found *inputErrors) {
	if len(a.Weights) == 0 {
		return
	}
	_, err := ParseWeights(joinNumbers(a.Weights))
	found.add(err)
	if a.Strategy == First {
		found.addf("--strategy=round-robin", "--weights= does not go with --strategy=first, by which one instance takes all")
	}
}
