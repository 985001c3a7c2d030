// Package nearest finds what a misspelt word may have meant.
package nearest

import "strings"

// longest bounds the words that are compared, as that costs the product of their lengths: no
// option, key or verb is longer.
const longest = 40

// Of returns the name that differs least from word, if by at most a third of its bytes, or that
// word is the beginning of. It is empty if none is near.
func Of(word string, names []string) string {
	best, least := "", len(word)/3+1
	for _, name := range names {
		if len(word) > 2 && strings.HasPrefix(name, word) {
			return name
		}
		if n := Distance(word, name); n < least {
			best, least = name, n
		}
	}
	return best
}

// Distance counts the bytes to insert, remove, replace or swap with their neighbour to make b of a
// (optimal string alignment). Words that are too long differ in all of their bytes.
func Distance(a, b string) int {
	if len(a) > longest || len(b) > longest {
		return max(len(a), len(b))
	}
	rows := make([][]int, len(a)+1)
	for i := range rows {
		rows[i] = make([]int, len(b)+1)
		rows[i][0] = i
	}
	for j := range rows[0] {
		rows[0][j] = j
	}
	for i := 1; i <= len(a); i++ {
		for j := 1; j <= len(b); j++ {
			change := 1
			if a[i-1] == b[j-1] {
				change = 0
			}
			rows[i][j] = min(rows[i-1][j]+1, rows[i][j-1]+1, rows[i-1][j-1]+change)
			if i > 1 && j > 1 && a[i-1] == b[j-2] && a[i-2] == b[j-1] {
				rows[i][j] = min(rows[i][j], rows[i-2][j-2]+1)
			}
		}
	}
	return rows[len(a)][len(b)]
}
