package main

import (
	"embed"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/pflag"

	"github.com/unitgen/unitgen/internal/app"
	"github.com/unitgen/unitgen/internal/imports"
)

// completions are the scripts for the shells. They ask "unitgen completion words SHELL WORD..." for what can stand in the
// place of the last word.
//
//go:embed completion
var completions embed.FS

// shells are those that there is a script for.
var shells = [...]string{"bash", "zsh", "fish"}

// completion prints the script of a shell.
func (c *command) completion() error {
	text, err := completions.ReadFile("completion/unitgen." + c.options.name)
	if err != nil {
		return inputf("unitgen completion bash", "completion takes a shell, %s, got %q", strings.Join(shells[:], ", "), c.options.name)
	}
	_, err = c.env.stdout.Write(text)
	return err
}

// candidate is a word that can stand where the user is, and what it means; about may be empty.
type candidate struct{ word, about string }

// printWords is "completion words SHELL WORD...": one candidate a line, for zsh and fish with a tab and its meaning behind.
// It never fails: a shell has nowhere to put an error.
func printWords(e *env, shell string, words []string) {
	cut := 0 // of what bash has in words before the current one
	if shell == "bash" {
		words, cut = joinBash(words)
	}
	if len(words) == 0 {
		words = []string{""}
	}
	for _, found := range complete(e, words) {
		word := found.word[min(cut, len(found.word)):]
		switch {
		case strings.ContainsAny(found.word, "\n\t"):
		case shell == "bash" || found.about == "":
			fmt.Fprintln(e.stdout, word)
		default:
			fmt.Fprintf(e.stdout, "%s\t%s\n", word, found.about)
		}
	}
}

// joinBash undoes what COMP_WORDBREAKS does to an option: "--kind", "=", "no" are one word to unitgen. cut is how many bytes
// of the last word stand before what bash completes.
func joinBash(words []string) (joined []string, cut int) {
	glue := false
	for i, word := range words {
		breaks := word != "" && strings.Trim(word, "=:") == ""
		if n := len(joined); n > 0 && (glue || breaks) {
			cut = len(joined[n-1])
			joined[n-1] += word
			if breaks { // the break itself is not completed, but what follows it
				cut = len(joined[n-1])
			}
		} else {
			joined, cut = append(joined, word), 0
		}
		glue = breaks && i < len(words)-1
	}
	return joined, cut
}

// complete lists what can stand in place of the last of words.
func complete(e *env, words []string) []candidate {
	current, before := words[len(words)-1], words[:len(words)-1]
	if dash := slices.Index(before, "--"); dash >= 0 {
		return matching(programs(e, current, dash == len(before)-1), current)
	}
	o := &options{given: make(map[string]bool)}
	flags := o.flags()
	var plain []string
	waiting := "" // the option whose value comes next
	for _, word := range before {
		if waiting != "" {
			flags.Set(waiting, word)
			waiting = ""
			continue
		}
		if !strings.HasPrefix(word, "-") {
			plain = append(plain, word)
			continue
		}
		waiting = takeFlag(o, flags, word)
	}
	if len(plain) > 0 {
		if verb, ok := verbOf(plain[0]); ok {
			o.verb, plain = verb, plain[1:]
		}
	}
	c := &command{env: e, options: o}
	c.site, _ = c.findSite()
	option, value, assigned := strings.Cut(strings.TrimPrefix(current, "--"), "=")
	switch {
	case waiting != "":
		return matching(c.values(waiting, current, ""), current)
	case strings.HasPrefix(current, "--") && assigned:
		return matching(c.values(option, value, "--"+option+"="), current)
	case strings.HasPrefix(current, "-"):
		return matching(optionWords(o, flags), current)
	}
	return matching(c.positions(plain, current), current)
}

// takeFlag notes an option and its value, and returns its name if the value is the next word.
func takeFlag(o *options, flags *pflag.FlagSet, word string) (waiting string) {
	name, value, assigned := strings.Cut(strings.TrimLeft(word, "-"), "=")
	flag := flags.Lookup(name)
	if flag == nil && len(name) == 1 {
		flag = flags.ShorthandLookup(name)
	}
	switch {
	case flag == nil:
		return ""
	case assigned:
		flags.Set(flag.Name, value)
	case flag.NoOptDefVal != "":
		flags.Set(flag.Name, flag.NoOptDefVal)
	default:
		waiting = flag.Name
	}
	o.given[flag.Name] = true
	return waiting
}

// optionWords are the options that go with the verb and can still be given.
func optionWords(o *options, flags *pflag.FlagSet) []candidate {
	names, known := takes(o.verb)
	if !known {
		return nil
	}
	var found []candidate
	for _, name := range append(slices.Clone(names), "help") {
		flag := flags.Lookup(name)
		if o.given[name] && flag.Value.Type() != "stringArray" {
			continue
		}
		word := "--" + name
		if flag.NoOptDefVal == "" {
			word += "="
		}
		found = append(found, candidate{word, aboutIn(helpText, "--"+name)})
	}
	return found
}

// values are those of an option, with prefix before each.
func (c *command) values(option, value, prefix string) []candidate {
	var words []string
	if s := app.SettingOf(option); s != nil {
		words = s.Choices()
	}
	switch option {
	case "json":
		words = []string{"short", "pretty", "off"}
	case "user":
		words = users(c.env.root + "/etc/passwd")
	case "file":
		words = files(c.env, value, func(name string) bool { return strings.HasSuffix(name, extension) })
	case "env-file", "watch":
		words = files(c.env, value, func(string) bool { return true })
	case "output", "working-directory":
		words = files(c.env, value, func(string) bool { return false })
	}
	found := make([]candidate, len(words))
	for i, word := range words {
		found[i].word = prefix + word
	}
	return found
}

// positions are the words that are no options, behind those of plain.
func (c *command) positions(plain []string, current string) []candidate {
	switch n := len(plain); {
	case c.options.verb == "check":
		return named(files(c.env, current, func(name string) bool { return strings.HasSuffix(name, extension) }))
	case c.options.verb == "import" && n == 0:
		return named(files(c.env, current, imports.Known))
	case c.options.verb == "completion" && n == 0:
		return named(shells[:])
	case c.options.verb == "" && n == 0 && strings.ContainsAny(current, "/"):
		return programs(c.env, current, true)
	case c.options.verb == "" && n == 0:
		return append(verbWords(), c.apps()...)
	case c.options.verb == "scale" && n == 1:
		return named([]string{"max", "+1", "-1"})
	case n > 0:
		return nil
	}
	switch c.options.verb {
	case "logs", "send":
		return append(c.apps(), c.instances(current)...)
	case "scale", "status", "diff", "remove", "doctor":
		return c.apps()
	}
	return nil
}

// verbWords are the verbs of the help text.
func verbWords() []candidate {
	var found []candidate
	for line := range strings.Lines(helpText) {
		word := strings.TrimRight(firstWord(line), ",")
		if verb, ok := verbOf(word); ok && strings.HasPrefix(line, "  ") && verb == word {
			found = append(found, candidate{word, aboutIn(helpText, word)})
		}
	}
	return found
}

// apps are those of this machine.
func (c *command) apps() []candidate {
	all, _ := c.findApps()
	found := make([]candidate, len(all))
	for i, a := range all {
		found[i] = candidate{string(a.App), strconv.Itoa(a.Instances) + " instances, port " + strings.Join(a.Listen, ",")}
	}
	return found
}

// instances are those of the app that current begins with, as app@2.
func (c *command) instances(current string) []candidate {
	word, _, _ := strings.Cut(current, "@")
	name, err := app.ParseName(word)
	if err != nil {
		return nil
	}
	var found []candidate
	for _, i := range c.site.Instances(name) {
		found = append(found, candidate{word: strings.TrimSuffix(name.Instance(i), ".service")})
	}
	return found
}

// programs are those of $PATH, if one is to be named, and files.
func programs(e *env, current string, first bool) []candidate {
	if !first {
		return named(files(e, current, func(string) bool { return true }))
	}
	if strings.Contains(current, "/") {
		return named(files(e, current, func(name string) bool { return isExecutable(join(e.cwd, name)) }))
	}
	var names []string
	for _, dir := range filepath.SplitList(e.getenv("PATH")) {
		entries, _ := os.ReadDir(dir)
		for _, entry := range entries {
			if strings.HasPrefix(entry.Name(), current) && isExecutable(filepath.Join(dir, entry.Name())) {
				names = append(names, entry.Name())
			}
		}
	}
	slices.Sort(names)
	return named(slices.Compact(names))
}

// files are the names in the directory of value that are directories, with a slash behind, or that take wants.
func files(e *env, value string, wants func(name string) bool) []string {
	dir, base := filepath.Split(value)
	entries, _ := os.ReadDir(join(e.cwd, firstOf(dir, ".")))
	var found []string
	for _, entry := range entries {
		name := dir + entry.Name()
		st, err := os.Stat(join(e.cwd, name))
		switch {
		case err != nil, strings.HasPrefix(entry.Name(), ".") && !strings.HasPrefix(base, "."):
		case st.IsDir():
			found = append(found, name+"/")
		case wants(name):
			found = append(found, name)
		}
	}
	return found
}

// users are the names in a file as passwd(5) describes it.
func users(file string) []string {
	text, _ := os.ReadFile(file)
	var names []string
	for line := range strings.Lines(string(text)) {
		if name, _, ok := strings.Cut(line, ":"); ok {
			names = append(names, name)
		}
	}
	return names
}

func named(words []string) []candidate {
	found := make([]candidate, len(words))
	for i, word := range words {
		found[i].word = word
	}
	return found
}

func matching(all []candidate, current string) []candidate {
	return slices.DeleteFunc(all, func(c candidate) bool { return !strings.HasPrefix(c.word, current) })
}

// aboutIn is what the help text says of an option or a verb.
func aboutIn(help, word string) string {
	for line := range strings.Lines(help) {
		const column = 31 // where the descriptions begin
		if len(line) <= column || !strings.HasPrefix(line, "  ") {
			continue
		}
		for _, w := range strings.FieldsFunc(line[:column], func(r rune) bool { return strings.ContainsRune(" ,=[", r) }) {
			if w == word {
				return strings.TrimSpace(line[column:])
			}
		}
	}
	return ""
}

func firstWord(line string) string {
	if words := strings.Fields(line); len(words) > 0 {
		return words[0]
	}
	return ""
}
