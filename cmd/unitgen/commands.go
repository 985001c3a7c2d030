package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// verb is a verb of unitgen. The verb without a name writes the units of an app.
type verb struct {
	name, alias string
	takes       []string // its options, beside --help and --version
	words       words    // completion of its arguments
}

func verbs() []verb {
	return []verb{
		{takes: append(settingOptions(), "file", "now", "output", "dry-run", "check"), words: appOrProgram},
		{name: "list", alias: "ls", takes: []string{"user-units", "json", "no-legend", "sort", "watch"}, words: noWords},
		{name: "status", takes: []string{"user-units", "json", "no-legend", "sort", "watch"}, words: oneApp},
		{name: "top", takes: []string{"user-units", "sort", "watch"}, words: someApps},
		{name: "reload", takes: []string{"user-units"}, words: oneApp},
		{name: "start", takes: []string{"user-units"}, words: oneApp},
		{name: "stop", takes: []string{"user-units"}, words: oneApp},
		{name: "restart", takes: []string{"user-units"}, words: oneApp},
		{name: "scale", takes: []string{"user-units", "output", "dry-run", "check", "now"}, words: appAndCount},
		{name: "logs", takes: []string{"user-units", "follow", "since", "json"}, words: appOrInstance},
		{name: "diff", takes: append(settingOptions(), "file", "output"), words: oneApp},
		{name: "send", takes: []string{"user-units"}, words: appOrInstance},
		{name: "check", takes: []string{"user-units", "systemd-version"}, words: settingsFiles},
		{name: "import", takes: []string{"env", "user", "user-units", "output", "dry-run", "now"}, words: firstFile},
		{name: "remove", takes: []string{"user-units", "output", "dry-run"}, words: oneApp},
		{name: "drain", takes: []string{"user-units", "persist", "wait", "timeout"}, words: oneApp},
		{name: "undrain", takes: []string{"user-units"}, words: oneApp},
		{name: "export", takes: []string{"user-units", "host", "tcp", "proxy-protocol", "domain", "virtual-address", "interface"}, words: engineAndApp},
		{name: "doctor", takes: []string{"user-units"}, words: oneApp},
		{name: "completion", words: shellNames},
		{name: "help", words: noWords},
	}
}

// execute carries out the command line.
func (c *command) execute(ctx context.Context) (status int, err error) {
	root := c.commands(&status)
	root.SetArgs(negativeCount(root, c.env.args))
	root.SetOut(c.env.stdout)
	root.SetErr(c.env.stderr)
	err = root.ExecuteContext(ctx)
	return status, err
}

// commands returns cobra's tree of the verbs. Its root is the verb without a name. The verb that
// runs sets status.
func (c *command) commands(status *int) *cobra.Command {
	c.options = &options{given: make(map[string]bool)}
	c.options.set = c.options.flags()
	completing := len(c.env.args) > 0 && c.env.args[0] == cobra.ShellCompRequestCmd // only completion needs what takes time
	var root *cobra.Command
	for _, v := range verbs() {
		cmd := &cobra.Command{
			Use: v.name, Args: cobra.ArbitraryArgs,
			SilenceErrors: true, SilenceUsage: true,
			RunE: func(cmd *cobra.Command, args []string) (err error) {
				*status, err = c.runVerb(cmd, v, args)
				return err
			},
		}
		if v.alias != "" {
			cmd.Aliases = []string{v.alias}
		}
		// All verbs know all options, to say which do not go with them.
		c.options.set.VisitAll(func(flag *pflag.Flag) {
			own := *flag
			own.Hidden = flag.Hidden || !v.has(flag.Name)
			if flag.Name == "watch" && v.watches() {
				own.NoOptDefVal = watchDefault // no path, but seconds
			}
			cmd.Flags().AddFlag(&own)
		})
		if completing {
			c.completes(cmd, v)
		}
		switch v.name {
		case "":
			root, cmd.Use = cmd, "unitgen"
			root.CompletionOptions.SetDefaultShellCompDirective(nothing)
			root.SetHelpFunc(func(*cobra.Command, []string) { fmt.Fprint(c.env.stdout, helpText) })
			root.SetFlagErrorFunc(func(cmd *cobra.Command, err error) error {
				return inputf(optionHint(err, cmd.Flags()), "%s", strings.TrimPrefix(err.Error(), "pflag: "))
			})
		case "help":
			root.SetHelpCommand(cmd)
		default:
			root.AddCommand(cmd)
		}
	}
	c.root = root
	return root
}

// watches reports whether the verb shows apps again and again. For others --watch= is a setting, of
// paths.
func (v verb) watches() bool { return v.name == "list" || v.name == "status" || v.name == "top" }

// has reports whether the verb takes an option.
func (v verb) has(option string) bool {
	return option == "help" || option == "version" || slices.Contains(v.takes, option)
}

// runVerb checks the options and arguments that cobra has read, and carries out the verb.
func (c *command) runVerb(cmd *cobra.Command, v verb, args []string) (status int, err error) {
	o := c.options
	o.verb = v.name
	cmd.Flags().Visit(func(flag *pflag.Flag) { o.given[flag.Name] = true })
	if o.given["i"] {
		delete(o.given, "i")
		o.given["instances"] = true
	}
	if dash := cmd.ArgsLenAtDash(); dash >= 0 {
		o.hasCommand, o.command, args = true, slices.Clone(args[dash:]), args[:dash]
	}
	if len(args) > 0 {
		o.name, o.args = args[0], args[1:]
	}
	switch {
	case o.showVersion:
		fmt.Fprintln(c.env.stdout, "unitgen", c.env.version)
		return exitSuccess, nil
	case v.name == "help":
		fmt.Fprint(c.env.stdout, helpText)
		return exitSuccess, nil
	}
	if err := errors.Join(o.judge(v)...); err != nil {
		return 0, err
	}
	return c.run(cmd.Context())
}

// negativeCount makes "unitgen scale app -2" work: pflag would read -2 as an option.
func negativeCount(root *cobra.Command, args []string) []string {
	cmd, rest, err := root.Find(args)
	if err != nil || cmd.Name() != "scale" {
		return append([]string{}, args...) // for nil cobra uses the arguments of the process
	}
	for i, word := range rest {
		if word == "--" {
			break
		}
		if len(word) > 1 && word[0] == '-' && strings.Trim(word[1:], "0123456789") == "" {
			rest = append(slices.Delete(slices.Clone(rest), i, i+1), "--", word)
			break
		}
	}
	return append([]string{"scale"}, rest...)
}
