package main

import (
	_ "embed"
	"slices"
	"strings"

	"github.com/spf13/pflag"

	"github.com/unitgen/unitgen/internal/app"
	"github.com/unitgen/unitgen/internal/view"
)

// helpText is what --help prints: one screen. A test compares it with the flag set.
//
//go:embed help.txt
var helpText string

// options is the command line as pflag has read it. judge checks it.
type options struct {
	verb string // empty: write units
	name string // empty if it was not given
	args []string
	// command is what follows "--"; hasCommand tells an empty one from none.
	command    []string
	hasCommand bool

	settings map[string]*optionValues // the values of the options that are settings of the table

	output, file, json, sort, since               string
	now, userUnits, dryRun, check, noLegend, help bool
	hosts                                         []string
	domain, virtualAddress, networkInterface      string
	timeout                                       string
	tcp, proxyProtocol, persist, wait, follow     bool
	showVersion                                   bool

	given map[string]bool // the options that were given, by long name
	set   *pflag.FlagSet  // writes to the fields above
}

// optionValues are the values of an option as the user typed them. It is a pflag.Value.
type optionValues struct {
	list   bool // all that were given count, not the last alone
	values []string
}

func (v *optionValues) Set(value string) error {
	if !v.list {
		v.values = nil
	}
	v.values = append(v.values, value)
	return nil
}

func (v *optionValues) String() string { return "" }

func (v *optionValues) Type() string {
	if v.list {
		return "stringArray"
	}
	return "string"
}

// give sets a setting as if the user had typed its option with these values. Without values the
// option counts as not given.
func (o *options) give(option string, values ...string) {
	o.settings[option].values, o.given[option] = values, len(values) > 0
}

// text is the value of a setting's option; empty if it was not given.
func (o *options) text(option string) string {
	if values := o.settings[option].values; len(values) > 0 {
		return values[len(values)-1]
	}
	return ""
}

// settingOptions are the options that change an app.
func settingOptions() []string {
	var names []string
	for _, s := range app.Table() {
		if s.Option != "" {
			names = append(names, s.Option)
		}
	}
	return names
}

// flags returns the options. Their values are read later, so that one run reports every value that
// is wrong.
func (o *options) flags() *pflag.FlagSet {
	f := pflag.NewFlagSet("unitgen", pflag.ContinueOnError)
	f.Usage = func() {}
	f.BoolVar(&o.now, "now", false, "")
	f.BoolVar(&o.userUnits, "user-units", false, "")
	f.StringVar(&o.file, "file", "", "")
	f.StringVar(&o.output, "output", "", "")
	f.StringArrayVar(&o.hosts, "host", nil, "")
	f.BoolVar(&o.tcp, "tcp", false, "")
	f.BoolVar(&o.proxyProtocol, "proxy-protocol", false, "")
	f.StringVar(&o.domain, "domain", "", "")
	f.StringVar(&o.virtualAddress, "virtual-address", "", "")
	f.StringVar(&o.networkInterface, "interface", "", "")
	f.BoolVar(&o.persist, "persist", false, "")
	f.BoolVar(&o.wait, "wait", false, "")
	f.StringVar(&o.timeout, "timeout", "", "")
	f.BoolVar(&o.dryRun, "dry-run", false, "")
	f.BoolVar(&o.check, "check", false, "")
	f.StringVar(&o.json, "json", "off", "")
	f.BoolVarP(&o.follow, "follow", "f", false, "")
	f.StringVar(&o.since, "since", "", "")
	f.StringVar(&o.sort, "sort", "name", "")
	f.BoolVar(&o.noLegend, "no-legend", false, "")
	f.BoolVarP(&o.help, "help", "h", false, "")
	f.BoolVar(&o.showVersion, "version", false, "")
	o.settings = make(map[string]*optionValues)
	for _, s := range app.Table() {
		if s.Option == "" || f.Lookup(s.Option) != nil {
			continue
		}
		o.settings[s.Option] = &optionValues{list: s.List}
		flag := f.VarPF(o.settings[s.Option], s.Option, s.Letter, "")
		if s.Flag {
			flag.NoOptDefVal = "yes"
		}
	}
	f.VarPF(o.settings["instances"], "i", "i", "").Hidden = true // PM2's word for it
	return f
}

// judge finds everything that is wrong with the command line itself.
func (o *options) judge(v verb) []error {
	var found []error
	for name := range o.given {
		if !v.has(name) {
			found = append(found, inputf("", "--%s does not go with %s", name, o.verb))
		}
	}
	slices.SortFunc(found, func(a, b error) int { return strings.Compare(a.Error(), b.Error()) })
	found = append(found, o.judgeArguments())
	if o.hasCommand && o.verb != "" && o.verb != "diff" && o.verb != "logs" {
		found = append(found, inputf("", "%s takes no command", o.verb))
	}
	return append(found, o.judgeValues(v)...)
}

// judgeArguments checks the words that are no options. What stands after "--" is an argument for
// scale and send: a negative number (see negativeCount).
func (o *options) judgeArguments() error {
	if o.hasCommand && (o.verb == "scale" || o.verb == "send") {
		o.args, o.command, o.hasCommand = append(o.args, o.command...), nil, false
	}
	switch n := len(o.args); o.verb {
	case "", "diff":
		return o.judgeStrayWords()
	case "scale":
		if n != 1 {
			return inputf("unitgen scale app +1", "scale takes an app and a number of instances")
		}
		o.give("instances", o.args[0])
	case "send":
		if n != 1 {
			return inputf("unitgen send app '{\"hello\":1}'", "send takes an app and a message")
		}
	case "export":
		if n != 1 {
			return inputf("unitgen export haproxy app --host=web1=10.0.0.11", "export takes an engine and an app")
		}
	case "doctor":
		if n > 0 {
			return inputf("", "doctor takes one app or none, got %q too", o.args[0])
		}
	case "check":
		if o.name == "" {
			return inputf("unitgen check app.unitgen", "check takes files")
		}
	case "import":
		return o.judgeImport()
	case "top": // any number of apps
	case "list":
		if o.name != "" {
			return inputf("unitgen status "+app.ShellWord(o.name), "list takes no app, got %q", o.name)
		}
	default:
		if n > 0 {
			return inputf("", "%s takes one app, got %q too", o.verb, o.args[0])
		}
	}
	return nil
}

// judgeStrayWords checks for words between the app and "--".
func (o *options) judgeStrayWords() error {
	if len(o.args) == 0 {
		return nil
	}
	if verb := verbHint(o.name); verb != "" && len(o.args) == 1 {
		return inputf(verb+" "+app.ShellWord(o.args[0]), "%q is not a verb of unitgen", o.name)
	}
	return inputf("unitgen "+app.ShellWord(o.name)+" -- "+app.ShellWords(o.args), "the command must stand after \"--\", got %q", o.args[0])
}

// judgeValues checks the options that are not settings of an app.
func (o *options) judgeValues(v verb) []error {
	var found []error
	switch o.json {
	case "off", "short", "pretty":
	default:
		found = append(found, inputf("", "--json= must be short, pretty or off, got %q", o.json))
	}
	if !slices.Contains(view.SortKeys(), o.sort) {
		found = append(found, inputf("", "--sort= must be %s, got %q", strings.Join(view.SortKeys(), ", "), o.sort))
	}
	if o.given["watch"] && v.watches() {
		if _, err := watchSpan(o.text("watch")); err != nil {
			found = append(found, err)
		}
	}
	if o.given["file"] && o.file == "" {
		found = append(found, inputf("", "--file= must be a file, got \"\""))
	}
	if o.given["output"] && o.output == "" {
		found = append(found, inputf("", "--output= must be a directory, got \"\""))
	}
	if o.given["output"] && o.now && o.verb != "import" {
		found = append(found, inputf("", "--now does not go with --output=, which touches no manager"))
	}
	return found
}
