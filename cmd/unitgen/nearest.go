package main

import (
	"errors"
	"strings"

	"github.com/spf13/pflag"
)

// optionHint is the option that one which does not exist was meant for, or where all of them stand.
func optionHint(err error, flags *pflag.FlagSet) string {
	var unknown *pflag.NotExistError
	if !errors.As(err, &unknown) {
		return "unitgen --help"
	}
	var names []string
	flags.VisitAll(func(flag *pflag.Flag) {
		if !flag.Hidden {
			names = append(names, flag.Name)
		}
	})
	if name := nearest(unknown.GetSpecifiedName(), names); name != "" {
		if flags.Lookup(name).NoOptDefVal != "" {
			return "--" + name
		}
		return "--" + name + "="
	}
	return "unitgen --help"
}

// verbHint is the command that does what a word says which is not a verb of unitgen's: another program's, or a slip of the pen.
// It is empty for others, and so for names of apps.
func verbHint(word string) string {
	switch word {
	case "enable", "disable":
		return "systemctl " + word
	case "delete", "del", "rm", "uninstall":
		return "unitgen remove"
	case "show", "describe", "info":
		return "unitgen status"
	case "ps", "jlist":
		return "unitgen list"
	case "log":
		return "unitgen logs"
	}
	var names []string
	for _, v := range verbs() {
		if !v.reserved && v.name != "" {
			names = append(names, v.name)
		}
	}
	if verb := nearest(word, names); verb != "" {
		return "unitgen " + verb
	}
	return ""
}

// nearest is the name that differs least from word, if that is by little: a third of its letters, or the rest of the word.
func nearest(word string, names []string) string {
	best, least := "", len(word)/3+1
	for _, name := range names {
		if len(word) > 2 && strings.HasPrefix(name, word) {
			return name
		}
		if n := distance(word, name); n < least {
			best, least = name, n
		}
	}
	return best
}

// distance counts the letters to insert, remove, replace or swap with their neighbour to make b of a (optimal string alignment).
func distance(a, b string) int {
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
