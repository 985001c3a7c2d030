package main

import (
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/unitgen/unitgen/internal/app"
	"github.com/unitgen/unitgen/internal/export"
	"github.com/unitgen/unitgen/internal/program"
	"github.com/unitgen/unitgen/internal/roster"
	"github.com/unitgen/unitgen/internal/view"
)

// words returns the completions of the next argument of a verb. args are the arguments before it,
// and current is what is typed of it. c has the options so far, if they can be read.
type words func(c *command, args []string, current string) ([]cobra.Completion, cobra.ShellCompDirective)

// What the shell adds: nothing, or its own completion of files where there are no words.
const (
	nothing = cobra.ShellCompDirectiveNoFileComp
	anyFile = cobra.ShellCompDirectiveDefault
)

// completion prints the script of a shell. The script runs "unitgen __complete WORD..." for the
// words.
func (c *command) completion() error {
	w := c.env.stdout
	switch c.options.name {
	case "bash":
		// Names of instances have an "@", at which bash would begin a new word.
		if _, err := w.Write([]byte("COMP_WORDBREAKS=${COMP_WORDBREAKS//@/}\n")); err != nil {
			return err
		}
		return c.root.GenBashCompletionV2(w, true)
	case "zsh":
		return c.root.GenZshCompletion(w)
	case "fish":
		return c.root.GenFishCompletion(w, true)
	}
	return inputf("unitgen completion bash", "completion takes a shell, bash, zsh, fish, got %q", c.options.name)
}

// completes tells cobra how to complete the arguments and options of a verb.
func (c *command) completes(cmd *cobra.Command, v verb) {
	cmd.Short = aboutIn(helpText, v.name)
	cmd.ValidArgsFunction = func(_ *cobra.Command, args []string, current string) ([]cobra.Completion, cobra.ShellCompDirective) {
		// cobra has put a "--" of its own behind them (getCompletions), so that ArgsLenAtDash says
		// nothing.
		if before := c.env.args[1 : len(c.env.args)-1]; slices.Contains(before, "--") {
			return c.programs(before[len(before)-1] == "--", current)
		}
		c.site, _ = c.findSite()
		return v.words(c, args, current)
	}
	cmd.Flags().VisitAll(func(flag *pflag.Flag) {
		flag.Usage = aboutIn(helpText, "--"+flag.Name)
		if !flag.Hidden {
			cmd.RegisterFlagCompletionFunc(flag.Name, func(*cobra.Command, []string, string) ([]cobra.Completion, cobra.ShellCompDirective) {
				if flag.NoOptDefVal == watchDefault {
					return nil, nothing // seconds, where others have a path
				}
				return c.values(flag.Name)
			})
		}
	})
}

// values returns the completions of an option's value.
func (c *command) values(option string) ([]cobra.Completion, cobra.ShellCompDirective) {
	switch option {
	case "json":
		return []string{"short", "pretty", "off"}, nothing
	case "sort":
		return view.SortKeys(), nothing
	case "user":
		return users(c.env.root + "/etc/passwd"), nothing
	case "file":
		return []string{strings.TrimPrefix(app.FileExtension, ".")}, cobra.ShellCompDirectiveFilterFileExt
	case "output", "working-directory":
		return nil, cobra.ShellCompDirectiveFilterDirs
	}
	s := app.SettingOf(option)
	switch {
	case s == nil:
		return nil, nothing
	case s.IsPath:
		return nil, anyFile
	}
	return s.Choices(), nothing
}

func noWords(*command, []string, string) ([]cobra.Completion, cobra.ShellCompDirective) {
	return nil, nothing
}

// engineAndApp are what export takes.
func engineAndApp(c *command, args []string, _ string) ([]cobra.Completion, cobra.ShellCompDirective) {
	switch len(args) {
	case 0:
		var engines []string
		for _, engine := range export.Engines() {
			engines = append(engines, string(engine))
		}
		return engines, nothing
	case 1:
		return c.apps(), nothing
	}
	return nil, nothing
}

func shellNames(_ *command, args []string, _ string) ([]cobra.Completion, cobra.ShellCompDirective) {
	if len(args) > 0 {
		return nil, nothing
	}
	return []string{"bash", "zsh", "fish"}, nothing
}

func firstFile(_ *command, args []string, _ string) ([]cobra.Completion, cobra.ShellCompDirective) {
	if len(args) > 0 {
		return nil, nothing
	}
	return nil, anyFile
}

func settingsFiles(c *command, _ []string, _ string) ([]cobra.Completion, cobra.ShellCompDirective) {
	return c.values("file")
}

func oneApp(c *command, args []string, _ string) ([]cobra.Completion, cobra.ShellCompDirective) {
	if len(args) > 0 {
		return nil, nothing
	}
	return c.apps(), nothing
}

// someApps are those that are not there yet.
func someApps(c *command, args []string, _ string) ([]cobra.Completion, cobra.ShellCompDirective) {
	return slices.DeleteFunc(c.apps(), func(name cobra.Completion) bool { return slices.Contains(args, name) }), nothing
}

// appOrProgram is what units are written for.
func appOrProgram(c *command, args []string, current string) ([]cobra.Completion, cobra.ShellCompDirective) {
	if len(args) == 0 && strings.Contains(current, "/") {
		return nil, anyFile
	}
	return oneApp(c, args, current)
}

func appAndCount(c *command, args []string, current string) ([]cobra.Completion, cobra.ShellCompDirective) {
	if len(args) == 1 {
		return []string{"max", "+1", "-1"}, nothing
	}
	return oneApp(c, args, current)
}

func appOrInstance(c *command, args []string, current string) ([]cobra.Completion, cobra.ShellCompDirective) {
	found, directive := oneApp(c, args, current)
	word, _, _ := strings.Cut(current, "@")
	name, err := app.ParseName(word)
	if len(args) > 0 || err != nil {
		return found, directive
	}
	for _, i := range c.site.Instances(name) {
		found = append(found, strings.TrimSuffix(name.Instance(i), ".service"))
	}
	return found, directive
}

// apps are those of this machine.
func (c *command) apps() []cobra.Completion {
	all, _ := roster.Apps(c.site)
	found := make([]cobra.Completion, len(all))
	for i, a := range all {
		found[i] = cobra.CompletionWithDesc(string(a.App), strconv.Itoa(a.Instances)+" instances, port "+strings.Join(a.Listen, ","))
	}
	return found
}

// programs returns the programs of $PATH that begin with current, where the user types a program.
// The shell completes files.
func (c *command) programs(first bool, current string) ([]cobra.Completion, cobra.ShellCompDirective) {
	if !first || strings.Contains(current, "/") {
		return nil, anyFile
	}
	var names []string
	for _, dir := range filepath.SplitList(c.env.getenv("PATH")) {
		entries, _ := os.ReadDir(dir)
		for _, entry := range entries {
			if strings.HasPrefix(entry.Name(), current) && program.IsExecutable(filepath.Join(dir, entry.Name())) {
				names = append(names, entry.Name())
			}
		}
	}
	slices.Sort(names)
	return slices.Compact(names), anyFile
}

// users returns the names in a file as passwd(5) describes it.
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

// aboutIn returns what the help text says of an option or a verb.
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
