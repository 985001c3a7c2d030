package app

import (
	"cmp"
	"slices"
	"strconv"
	"strings"
	"time"
)

// ParseExitCodes reads the value of --stop-exit-codes=: numbers from 0 to 255 with commas between
// them, none twice.
func ParseExitCodes(s string) ([]int, error) {
	return parseNumbers("--stop-exit-codes=", s, 0, 255, func(codes []int) bool {
		return len(slices.Compact(slices.Sorted(slices.Values(codes)))) == len(codes)
	})
}

// ParseWeights reads the value of --weights=: numbers from 1 to 256 with commas between them, by
// instance number.
func ParseWeights(s string) ([]int, error) {
	return parseNumbers("--weights=", s, MinWeight, MaxWeight, func(weights []int) bool { return len(weights) <= MaxInstances })
}

// MinWeight and MaxWeight bound the share of an instance, as in package balance, which depends on
// nothing.
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
		case a.Name.AgentService(), a.Name.AgentSocket():
			return a.Agent == Listen{}
		case a.Name.MetricsService(), a.Name.MetricsSocket():
			return a.Metrics == Listen{}
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

// Triggers lists the units of Name.Triggers that the settings ask for.
func (a App) Triggers() []string {
	has := a.Units()
	return slices.DeleteFunc(a.Name.Triggers(), func(unit string) bool { return !slices.Contains(has, unit) })
}

// maxRestarts is one below the limit of an unsigned int, as one more start is the first.
const maxRestarts = 1 << 20

// noWithin takes back WithinSec=, which means nothing without MaxRestarts=.
func noWithin(a *App) {
	if a.Restart.Max == 0 {
		a.Restart.Within = 0
	}
}

func (a App) checkWatch(found *inputErrors) {
	for i, path := range a.Restart.Watch {
		if problem := rawPathProblem(path); problem != "" {
			found.addf("", "--watch= %s, got %q", problem, path)
		} else if slices.Contains(a.Restart.Watch[:i], path) {
			found.addf("", "--watch=%s is given twice", path)
		}
	}
}

func (a App) checkMemoryReload(found *inputErrors) {
	if r := a.Restart; r.MaxMemory != 0 && r.MemoryReload >= r.MaxMemory {
		found.addf("", "--memory-reload=%s must be below --max-memory=%s, where the kernel kills without a drain", r.MemoryReload, r.MaxMemory)
	}
}

// checkReloadAt accepts values that can be a calendar expression (systemd.time(7)); systemd-analyze
// calendar checks the whole grammar. It leaves nothing that a unit file would read differently.
func (a App) checkReloadAt(found *inputErrors) {
	const others = " *,./:~+-_" // "_", "+" and "/" stand in time zones
	s := a.Restart.ReloadAt
	bad := strings.ContainsFunc(s, func(r rune) bool {
		return (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') && (r < '0' || r > '9') && !strings.ContainsRune(others, r)
	})
	if bad || s != strings.TrimSpace(s) || len(s) > 255 {
		found.addf("--reload-at='*-*-* 04:00'", "--reload-at= must be a calendar expression (systemd.time(7)), got %q", shorten(s))
	}
}
