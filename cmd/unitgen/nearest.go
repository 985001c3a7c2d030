package main

import (
	"errors"

	"github.com/spf13/pflag"

	"github.com/unitgen/unitgen/internal/nearest"
)

// optionHint returns the option that the user probably meant, or else the command that lists all
// options.
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
	if name := nearest.Of(unknown.GetSpecifiedName(), names); name != "" {
		if flags.Lookup(name).NoOptDefVal != "" {
			return "--" + name
		}
		return "--" + name + "="
	}
	return "unitgen --help"
}

// verbHint returns the command for a word that is no verb of unitgen: a verb of another program, or
// a misspelt one. It is empty for all other words, and so for names of apps.
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
	case "monit", "monitor", "dash":
		return "unitgen top"
	case "log":
		return "unitgen logs"
	}
	var names []string
	for _, v := range verbs() {
		if v.name != "" {
			names = append(names, v.name)
		}
	}
	if verb := nearest.Of(word, names); verb != "" {
		return "unitgen " + verb
	}
	return ""
}
