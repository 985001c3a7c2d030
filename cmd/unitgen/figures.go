package main

import (
	"cmp"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
)

// figureColumns are the columns of figures.
func figureColumns() []string {
	return []string{"CPU", "MEMORY", "CONNS", "CONNS/S", "RESTARTS", "UPTIME"}
}

// figureTable are those that are aligned at their right.
func figureTable() map[string]bool {
	right := map[string]bool{"UPTIME": true}
	for _, column := range figureColumns() {
		right[column] = true
	}
	return right
}

// quietColumns are those that say nothing where they say 0 of everybody.
func quietColumns() map[string]bool {
	return map[string]bool{"RESTARTS": true, "QUEUED": true}
}

// cells are the figures, in the order of figureColumns.
func (f figures) cells() []cell {
	var cells [6]cell
	if f.CPUPercent != nil {
		cells[0].text = percent(*f.CPUPercent)
	}
	if f.MemoryBytes != nil {
		cells[1].text = bytesText(*f.MemoryBytes)
	}
	if f.Connections != nil {
		cells[2].text = strconv.Itoa(*f.Connections)
	}
	if f.ConnectionsPerSecond != nil {
		cells[3].text = perSecond(*f.ConnectionsPerSecond)
	}
	cells[4].text = strconv.FormatUint(f.Restarts, 10)
	if f.Since != nil {
		cells[5].text = span(f.uptime)
	}
	return cells[:]
}

// rounded keeps two digits behind the point.
func rounded(x float64) float64 { return math.Round(x*100) / 100 }

// percent has one digit where it says something.
func percent(x float64) string {
	if x < 9.95 {
		return strconv.FormatFloat(x, 'f', 1, 64) + "%"
	}
	return strconv.FormatFloat(x, 'f', 0, 64) + "%"
}

func perSecond(x float64) string {
	switch {
	case x == 0:
		return "0"
	case x < 9.95:
		return strconv.FormatFloat(x, 'f', 1, 64)
	}
	return strconv.FormatFloat(x, 'f', 0, 64)
}

// bytesText is a size as systemctl has it: powers of 1024, with one digit below 100.
func bytesText(n int64) string {
	if n < 1024 {
		return fmt.Sprintf("%dB", n)
	}
	x := float64(n)
	for i, unit := range "KMGTPE" {
		x /= 1024
		if x < 99.95 && i > 0 {
			return strings.TrimSuffix(strconv.FormatFloat(x, 'f', 1, 64), ".0") + string(unit)
		}
		if x < 1023.5 {
			return strconv.FormatFloat(x, 'f', 0, 64) + string(unit)
		}
	}
	return fmt.Sprint(n)
}

// sortKeys are the values of --sort=. Numbers sort the largest first.
func sortKeys() []string {
	return []string{"name", "state", "cpu", "memory", "connections", "rate", "restarts", "uptime"}
}

// sortable is a row of list or status.
type sortable interface {
	sortState() string
	sortFigures() figures
}

func (a *listed) sortState() string    { return a.State }
func (a *listed) sortFigures() figures { return a.figures }

// sortBy sorts rows that are in the order of their names.
func sortBy[R sortable](rows []R, key string) {
	value := func(f figures) float64 {
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
	slices.SortStableFunc(rows, func(a, b R) int {
		if key == "state" {
			return strings.Compare(a.sortState(), b.sortState())
		}
		return cmp.Compare(value(b.sortFigures()), value(a.sortFigures()))
	})
}

// known is a number, or less than all numbers.
func known[N int | int64 | float64](n *N) float64 {
	if n == nil {
		return -1
	}
	return float64(*n)
}
