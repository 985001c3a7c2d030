package main

import (
	"fmt"
	"strings"
)

// contextLines is how many equal lines a diff shows around a change, as diff -u does.
const contextLines = 3

// edit is one line of a comparison: kept (' '), removed ('-') or added ('+').
type edit struct {
	kind byte
	line string
}

// unifiedDiff writes how old and text differ in the form of diff -u; old empty for a file that does not exist.
func unifiedDiff(b *strings.Builder, path, old, text string) {
	from := path
	if old == "" {
		from = "/dev/null"
	}
	fmt.Fprintf(b, "--- %s\n+++ %s\n", from, path)
	edits := compareLines(splitLines(old), splitLines(text))
	for begin := 0; begin < len(edits); {
		if edits[begin].kind == ' ' {
			begin++
			continue
		}
		// A hunk ends where more equal lines follow than two contexts would show.
		end, equal := begin, 0
		for i := begin; i < len(edits) && equal <= 2*contextLines; i++ {
			equal++
			if edits[i].kind != ' ' {
				end, equal = i+1, 0
			}
		}
		writeHunk(b, edits, max(0, begin-contextLines), min(len(edits), end+contextLines))
		begin = end
	}
}

// writeHunk writes edits[from:to] under the numbers of their lines.
func writeHunk(b *strings.Builder, edits []edit, from, to int) {
	oldLine, newLine := 1, 1
	for _, e := range edits[:from] {
		if e.kind != '+' {
			oldLine++
		}
		if e.kind != '-' {
			newLine++
		}
	}
	olds, news := 0, 0
	for _, e := range edits[from:to] {
		if e.kind != '+' {
			olds++
		}
		if e.kind != '-' {
			news++
		}
	}
	fmt.Fprintf(b, "@@ -%s +%s @@\n", hunkRange(oldLine, olds), hunkRange(newLine, news))
	for _, e := range edits[from:to] {
		fmt.Fprintf(b, "%c%s\n", e.kind, e.line)
	}
}

// hunkRange is a range as diff -u writes it: one of no lines stands after the line before it.
func hunkRange(line, n int) string {
	if n == 0 {
		line--
	}
	if n == 1 {
		return fmt.Sprint(line)
	}
	return fmt.Sprintf("%d,%d", line, n)
}

func splitLines(text string) []string {
	if text == "" {
		return nil
	}
	return strings.Split(strings.TrimSuffix(text, "\n"), "\n")
}

// compareLines finds the fewest removed and added lines, by the table of longest common subsequences: unit files have
// some hundred lines, so its size does not matter.
func compareLines(a, b []string) []edit {
	common := make([][]int, len(a)+1)
	for i := range common {
		common[i] = make([]int, len(b)+1)
	}
	for i := len(a) - 1; i >= 0; i-- {
		for j := len(b) - 1; j >= 0; j-- {
			if a[i] == b[j] {
				common[i][j] = common[i+1][j+1] + 1
			} else {
				common[i][j] = max(common[i+1][j], common[i][j+1])
			}
		}
	}
	var edits []edit
	i, j := 0, 0
	for i < len(a) || j < len(b) {
		switch {
		case i < len(a) && j < len(b) && a[i] == b[j]:
			edits = append(edits, edit{' ', a[i]})
			i, j = i+1, j+1
		case i < len(a) && (j == len(b) || common[i+1][j] >= common[i][j+1]):
			edits = append(edits, edit{'-', a[i]})
			i++
		default:
			edits = append(edits, edit{'+', b[j]})
			j++
		}
	}
	return edits
}
