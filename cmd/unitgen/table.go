package main

import (
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"time"
	"unicode/utf8"
)

// table is what list and status print: aligned columns under a header, or rows of JSON.
type table struct {
	columns []string
	rows    [][]cell
	right   map[string]bool // columns of numbers
	quiet   map[string]bool // columns that vanish where every row has 0 too
}

// cell is a text and the colour of a state, if it has one.
type cell struct {
	text   string
	colour string
}

// The colours are systemctl's: green for what runs, yellow for what is on its way, red for what failed.
const (
	green  = "\x1b[0;32m"
	yellow = "\x1b[0;33m"
	red    = "\x1b[0;1;31m"
	plain  = "\x1b[0m"
)

// print writes the table. A column that is empty in every row vanishes.
func (t *table) print(w io.Writer, legend, coloured choice) {
	widths := make([]int, len(t.columns))
	for i, column := range t.columns {
		says := false
		for _, row := range t.rows {
			widths[i] = max(widths[i], utf8.RuneCountInString(row[i].text))
			says = says || row[i].text != "" && !(t.quiet[column] && row[i].text == "0")
		}
		if !says {
			widths[i] = 0
			continue
		}
		if widths[i] > 0 && legend == yes {
			widths[i] = max(widths[i], len(column))
		}
	}
	if legend == yes {
		header := make([]cell, len(t.columns))
		for i, column := range t.columns {
			header[i].text = column
		}
		t.printRow(w, header, widths, no)
	}
	for _, row := range t.rows {
		t.printRow(w, row, widths, coloured)
	}
}

// choice is yes or no where a bool would not say what it is.
type choice int

const (
	no choice = iota
	yes
)

func choose(b bool) choice {
	if b {
		return yes
	}
	return no
}

func (t *table) printRow(w io.Writer, row []cell, widths []int, coloured choice) {
	var b strings.Builder
	for i, c := range row {
		if widths[i] == 0 {
			continue
		}
		if b.Len() > 0 {
			b.WriteByte(' ')
		}
		pad := strings.Repeat(" ", widths[i]-utf8.RuneCountInString(c.text))
		text := c.text
		if coloured == yes && c.colour != "" {
			text = c.colour + text + plain
		}
		if t.right[t.columns[i]] {
			b.WriteString(pad + text)
		} else {
			b.WriteString(text + pad)
		}
	}
	fmt.Fprintln(w, strings.TrimRight(b.String(), " "))
}

// printJSON writes v as --json= asks: on one line, or indented.
func (c *command) printJSON(v any) error {
	e := json.NewEncoder(c.env.stdout)
	e.SetEscapeHTML(false)
	if c.options.json == "pretty" {
		e.SetIndent("", "\t")
	}
	return e.Encode(v)
}

// coloured says whether states are coloured: on a terminal, unless NO_COLOR is set (no-color.org).
func (c *command) coloured() choice {
	return choose(c.env.terminal && c.env.getenv("NO_COLOR") == "" && c.env.getenv("TERM") != "dumb")
}

// span is a time span for a table, in at most two units: "2h 4min".
func span(d time.Duration) string {
	units := [...]struct {
		d    time.Duration
		name string
	}{{24 * time.Hour, "d"}, {time.Hour, "h"}, {time.Minute, "min"}, {time.Second, "s"}}
	var words []string
	for _, u := range units {
		if n := d / u.d; n > 0 || u.d == time.Second && len(words) == 0 {
			words = append(words, fmt.Sprintf("%d%s", n, u.name))
			d -= n * u.d
		} else if len(words) > 0 {
			break
		}
		if len(words) == 2 {
			break
		}
	}
	return strings.Join(words, " ")
}
