package view

import (
	"strings"
	"testing"
	"time"
)

func TestUnits(t *testing.T) {
	for n, want := range map[int64]string{0: "0B", 1023: "1023B", 1024: "1K", 10 << 10: "10K", 1 << 20: "1M", 3 << 19: "1.5M",
		123 << 20: "123M", 1 << 30: "1G", 1<<30 - 1: "1G", 3 << 40: "3T", 1<<63 - 1: "8E"} {
		if got := Bytes(n); got != want {
			t.Errorf("Bytes(%d) = %s, want %s", n, got, want)
		}
	}
	for x, want := range map[float64]string{0: "0.0%", 0.04: "0.0%", 9.94: "9.9%", 9.96: "10%", 412.3: "412%"} {
		if got := Percent(x); got != want {
			t.Errorf("Percent(%v) = %s, want %s", x, got, want)
		}
	}
	for x, want := range map[float64]string{0: "0", 0.04: "0.0", 9.94: "9.9", 9.96: "10", 412.3: "412"} {
		if got := PerSecond(x); got != want {
			t.Errorf("PerSecond(%v) = %s, want %s", x, got, want)
		}
	}
	for d, want := range map[time.Duration]string{0: "0s", 999 * time.Millisecond: "0s", 59 * time.Second: "59s", time.Minute: "1min",
		61 * time.Second: "1min 1s", time.Hour + time.Second: "1h", 2*time.Hour + 4*time.Minute + 5*time.Second: "2h 4min",
		24*time.Hour + time.Minute: "1d", 400 * 24 * time.Hour: "400d", 25 * time.Hour: "1d 1h"} {
		if got := Span(d); got != want {
			t.Errorf("Span(%v) = %s, want %s", d, got, want)
		}
	}
	if one, none := Counted(1, "app"), Counted(0, "app"); one != "1 app" || none != "0 apps" {
		t.Error(one, none)
	}
}

func printed(t *testing.T, table *Table, s Style) string {
	t.Helper()
	var b strings.Builder
	if err := table.Print(&b, s); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

func TestTable(t *testing.T) {
	table := &Table{Columns: []string{"APP", "STATE", "EMPTY", "N"}, Right: map[string]bool{"N": true},
		Rows: [][]Cell{{{Text: "wéb"}, State("active"), {}, {Text: "1"}}, {{Text: "a"}, State("idle"), {}, {}}}}
	for _, test := range []struct {
		style Style
		want  string
	}{
		{Style{Legend: true}, "APP STATE  N\nwéb active 1\na   idle\n"},
		{Style{}, "wéb active 1\na   idle\n"},
		{Style{Colour: true}, "wéb \x1b[0;32mactive\x1b[0m 1\na   idle\n"},
	} {
		if got := printed(t, table, test.style); got != test.want {
			t.Errorf("%+v: got %q, want %q", test.style, got, test.want)
		}
	}
	table.Rows = nil
	if got := printed(t, table, Style{}); got != "" {
		t.Errorf("an empty table: %q", got)
	}
}

// A column that says nothing of anybody is left out.
func TestQuietColumns(t *testing.T) {
	for restarts, want := range map[string]string{"0": "A\nx\n", "3": "A RESTARTS\nx        3\n"} {
		table := &Table{Columns: []string{"A", "RESTARTS", "B"}, Right: map[string]bool{"RESTARTS": true},
			Quiet: map[string]bool{"RESTARTS": true}, Rows: [][]Cell{Cells("x", restarts, "")}}
		if got := printed(t, table, Style{Legend: true}); got != want {
			t.Errorf("restarts %s: %q, want %q", restarts, got, want)
		}
	}
}
