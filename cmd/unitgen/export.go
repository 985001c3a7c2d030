package main

import (
	"errors"
	"fmt"

	"github.com/unitgen/unitgen/internal/app"
	"github.com/unitgen/unitgen/internal/export"
)

// export prints the configuration of an engine that balances an app on one host or several.
func (c *command) export() error {
	o := export.Options{TCP: c.options.tcp, Proxy: c.options.proxyProtocol, Domain: c.options.domain,
		Address: c.options.virtualAddress, Interface: c.options.networkInterface}
	var found []error
	for _, text := range c.options.hosts {
		h, err := export.ParseHost(text)
		if err != nil {
			found = append(found, err)
			continue
		}
		o.Hosts = append(o.Hosts, h)
	}
	engine := export.Engine(c.options.name)
	a, err := c.exported()
	if err := errors.Join(append(found, err)...); err != nil {
		return err
	}
	text, err := export.Export(engine, a, o)
	if err != nil {
		return err
	}
	if a.Agent == (app.Listen{}) && len(o.Hosts) > 1 && (engine == export.HAProxy || engine == export.Caddy) {
		c.say("Note: %s has no agent, so the front does not learn of drains: unitgen %s --agent=9999", a.Name, a.Name)
	}
	_, err = fmt.Fprint(c.env.stdout, text)
	return err
}

// exported reads the settings of the app that export is about.
func (c *command) exported() (app.App, error) {
	name, err := app.ParseName(c.options.args[0])
	if err != nil {
		return app.App{}, err
	}
	return c.settingsOf(name)
}
