package main

import (
	"strconv"
	"strings"

	"github.com/unitgen/unitgen/internal/app"
)

// logs becomes journalctl: what the balancer, the instances and PID 1 say of an app or of one instance. Its arguments are
// the user's, behind the units.
func (c *command) logs() error {
	word, number, one := strings.Cut(c.options.name, "@")
	name, err := app.ParseName(word)
	if err != nil {
		return err
	}
	if !c.site.Has(name) {
		hint := "journalctl -u " + name.Service()
		if c.site.UserUnits {
			hint = "journalctl --user -u " + name.Service()
		}
		return inputf(hint, "there is no app %q; its old messages may still be in the journal", name)
	}
	units := []string{name.Service(), string(name) + ".socket", string(name) + "@*", string(name) + "-join@*"}
	if one {
		i, ok := app.ParseInstance(number)
		if !ok {
			return inputf("unitgen logs "+app.ShellWord(word+"@1"), "the instance must be a number from 1 to %s, got %q", strconv.Itoa(app.MaxInstances), number)
		}
		units = []string{name.Instance(i), name.InstanceSocket(i), name.Join(i)}
	}
	argv := []string{"journalctl"}
	if c.site.UserUnits {
		argv = append(argv, "--user")
	}
	for _, unit := range units {
		argv = append(argv, "--unit="+unit)
	}
	return c.env.exec(append(argv, c.options.command...))
}
