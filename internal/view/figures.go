package view

import (
	"cmp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/unitgen/unitgen/internal/survey"
)

// Figures are what is counted of an app or of an instance. Nil is what is not known: only root may
// ask the balancer, and a program that does not run has no figures.
type Figures struct {
	CPUPercent           *float64   `json:"cpuPercent"` // 100 is one processor
	MemoryBytes          *int64     `json:"memoryBytes"`
	Connections          *int       `json:"connections"` // open
	ConnectionsPerSecond *float64   `json:"connectionsPerSecond"`
	ConnectionsTotal     *uint64    `json:"connectionsTotal"` // given
	Restarts             uint64     `json:"restarts"`
	Since                *time.Time `json:"since"`

	uptime time.Duration
}

// AppFigures are the sums of the instances of an app in a look. Rates are those since the look
// before, which may be nil (survey.Look.Rate).
func AppFigures(a survey.App, look, before *survey.Look) Figures {
	var f Figures
	var memory int64
	var open int
	var given uint64
	measured, counted := false, a.Answered
	for _, in := range a.Instances {
		if in.Usage.HasMemory {
			memory, measured = memory+int64(in.Usage.Memory), true
		}
		if in.Open < 0 && in.State != "down" {
			counted = false
		}
		open += max(0, in.Open)
		given += in.Steered
		f.Restarts += in.Restarts
	}
	if measured {
		f.MemoryBytes = &memory
	}
	if counted {
		f.Connections = &open
	}
	if a.Answered {
		f.ConnectionsTotal = &given
	}
	f.rate(look.AppRate(before, a))
	if a.Runs() && !a.Opened.IsZero() {
		f.began(a.Opened, look.At)
	}
	return f
}

// InstanceFigures are those of one instance of an app, as AppFigures has them.
func InstanceFigures(a survey.App, in survey.Instance, look, before *survey.Look) Figures {
	f := Figures{Restarts: in.Restarts}
	if in.Usage.HasMemory {
		memory := int64(in.Usage.Memory)
		f.MemoryBytes = &memory
	}
	if a.Answered {
		f.ConnectionsTotal = &in.Steered
		if in.Open >= 0 {
			f.Connections = &in.Open
		}
	}
	f.rate(look.Rate(before, a, in))
	if !in.Started.IsZero() {
		f.began(in.Started, look.At)
	}
	return f
}

func (f *Figures) rate(r survey.Rate) {
	if r.HasCPU {
		percent := rounded(r.CPU * 100)
		f.CPUPercent = &percent
	}
	if r.HasConnections {
		perSecond := rounded(r.Connections)
		f.ConnectionsPerSecond = &perSecond
	}
}

func (f *Figures) began(since, now time.Time) {
	f.Since, f.uptime = &since, max(0, now.Sub(since))
}

// figureTable is a table with columns of figures between those before and behind.
func figureTable(before, behind []string) Table {
	figures := []string{"CPU", "MEMORY", "CONNS", "CONNS/S", "RESTARTS", "UPTIME"}
	t := Table{Columns: slices.Concat(before, figures, behind), Right: make(map[string]bool), Quiet: map[string]bool{"RESTARTS": true, "QUEUED": true}}
	for _, column := range append(figures, "INSTANCES", "PID", "QUEUED", "TOTAL") {
		t.Right[column] = true
	}
	return t
}

// cells are the figures in the order of figureTable.
func (f *Figures) cells() []Cell {
	cells := Cells("", "", number(f.Connections), "", number(&f.Restarts), "")
	if f.CPUPercent != nil {
		cells[0].Text = Percent(*f.CPUPercent)
	}
	if f.MemoryBytes != nil {
		cells[1].Text = Bytes(*f.MemoryBytes)
	}
	if f.ConnectionsPerSecond != nil {
		cells[3].Text = PerSecond(*f.ConnectionsPerSecond)
	}
	if f.Since != nil {
		cells[5].Text = Span(f.uptime)
	}
	return cells
}

// number is a count; empty where it is not known.
func number[N int | uint64](n *N) string {
	if n == nil {
		return ""
	}
	return strconv.FormatUint(uint64(*n), 10)
}

// SortKeys are what rows can be sorted by.
func SortKeys() []string {
	return []string{"name", "state", "cpu", "memory", "connections", "rate", "restarts", "uptime"}
}

// Row is an app or an instance.
type Row interface {
	*App | *Instance
	sorted() (state string, f *Figures)
}

// Sort sorts rows that are in the order of their names by one of SortKeys: figures the largest
// first, and those that are not known last.
func Sort[R Row](rows []R, key string) {
	if key == "name" {
		return
	}
	slices.SortStableFunc(rows, func(a, b R) int {
		stateA, figuresA := a.sorted()
		stateB, figuresB := b.sorted()
		if key == "state" {
			return strings.Compare(stateA, stateB)
		}
		return cmp.Compare(figuresB.value(key), figuresA.value(key))
	})
}

func (f *Figures) value(key string) float64 {
	switch key {
	case "cpu":
		return known(f.CPUPercent)
	case "memory":
		return known(f.MemoryBytes)
	case "connections":
		return known(f.Connections)
	case "rate":
		return known(f.ConnectionsPerSecond)
	case "restarts":
		return float64(f.Restarts)
	case "uptime":
		return f.uptime.Seconds()
	}
	return 0
}

// known is a number, or less than all numbers.
func known[N int | int64 | float64](n *N) float64 {
	if n == nil {
		return -1
	}
	return float64(*n)
}
