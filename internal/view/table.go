package view

import (
	"io"
	"strings"
	"unicode/utf8"
)

// Table is text in aligned columns. It may be printed more than once.
type Table struct {
	Columns []string
	Rows    [][]Cell        // each has a cell for every column
	Right   map[string]bool // columns that are aligned at their right, as numbers are
	Quiet   map[string]bool // columns that are left out where every row has 0, too
}

// Cell is a text. It is printed in the colour if the table is printed in colour.
type Cell struct {
	Text   string
	Colour Colour
}

// Cells are texts without a colour.
func Cells(texts ...string) []Cell {
	cells := make([]Cell, len(texts))
	for i, text := range texts {
		cells[i].Text = text
	}
	return cells
}

// Style is how a view is printed. The zero value is for programs that read it: neither a legend nor
// colours.
type Style struct {
	Legend bool // with a header, and what else only people read
	Colour bool
}

// Print writes the table in one write. A column that is empty in every row is left out.
func (t *Table) Print(w io.Writer, s Style) error {
	widths := make([]int, len(t.Columns)) // 0: left out
	for i, column := range t.Columns {
		says := false
		for _, row := range t.Rows {
			text := row[i].Text
			widths[i] = max(widths[i], utf8.RuneCountInString(text))
			says = says || text != "" && !(t.Quiet[column] && text == "0")
		}
		switch {
		case !says:
			widths[i] = 0
		case s.Legend:
			widths[i] = max(widths[i], len(column))
		}
	}
	var b strings.Builder
	if s.Legend {
		t.line(&b, Cells(t.Columns...), widths, false)
	}
	for _, row := range t.Rows {
		t.line(&b, row, widths, s.Colour)
	}
	_, err := io.WriteString(w, b.String())
	return err
}

// line writes a row without blanks at its end.
func (t *Table) line(b *strings.Builder, row []Cell, widths []int, coloured bool) {
	first, owed := true, 0 // blanks before the next text
	for i, c := range row {
		if widths[i] == 0 {
			continue
		}
		if !first {
			owed++
		}
		first = false
		pad := widths[i] - utf8.RuneCountInString(c.Text)
		if t.Right[t.Columns[i]] {
			owed, pad = owed+pad, 0
		}
		if c.Text != "" {
			b.WriteString(strings.Repeat(" ", owed))
			owed = 0
			if coloured {
				b.WriteString(c.Colour.Paint(c.Text))
			} else {
				b.WriteString(c.Text)
			}
		}
		owed += pad
	}
	b.WriteByte('\n')
}
