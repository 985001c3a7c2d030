package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/unitgen/unitgen/internal/app"
	"github.com/unitgen/unitgen/internal/imports"
	"github.com/unitgen/unitgen/internal/learn"
	"github.com/unitgen/unitgen/internal/program"
)

// importApps makes .unitgen files of another process manager's configuration, and with --now apps.
func (c *command) importApps(ctx context.Context) (status int, err error) {
	o := c.options
	node := imports.Node{Program: program.Search("node", c.env.getenv("PATH"), c.env.cwd), Root: c.env.euid == 0, User: o.text("user"), Environ: c.env.environ()}
	found, err := imports.Read(ctx, imports.Options{
		Path: c.absolute(o.name), Shown: o.name, Only: o.args, Env: o.text("env"), User: o.text("user"), UserUnits: o.userUnits, Root: c.env.euid == 0,
		CPUs: c.env.cpus, Getenv: c.env.getenv, JavaScript: node.Evaluate,
	})
	if err != nil {
		return 0, err
	}
	files := found.Files(c.importDir())
	if _, err := io.WriteString(c.env.stdout, found.Report()); err != nil {
		return 0, err
	}
	if o.dryRun {
		_, err := io.WriteString(c.env.stdout, imports.Text(files))
		return exitSuccess, err
	}
	if o.now && c.env.euid == 0 {
		if err := found.Claims(); err != nil {
			return 0, err
		}
	}
	if o.output == "" {
		if err := os.MkdirAll(c.importDir(), 0o755); err != nil {
			return 0, fmt.Errorf("make directory %s: %w", c.importDir(), err)
		}
	}
	written, err := imports.Write(files)
	if err != nil {
		return 0, err
	}
	if o.now {
		if status := c.tryImported(ctx, found); status != exitSuccess {
			return status, imports.Remove(written)
		}
	}
	for _, path := range written {
		c.say("Wrote %s.", path)
	}
	if !o.now {
		c.sayNext(found)
		return exitSuccess, nil
	}
	return c.makeImported(ctx, found), nil
}

// importDir is the directory of the files that an import writes: the current one, unless root makes
// apps at once. Whoever can write to a user's directory could change a file there before root reads
// it.
func (c *command) importDir() string {
	o := c.options
	if o.output == "" && o.now && c.env.euid == 0 && !o.userUnits {
		return c.env.root + "/etc/unitgen"
	}
	return c.absolute(o.output)
}

// imported returns the path of an app's .unitgen file.
func (c *command) imported(a *imports.App) string {
	return filepath.Join(c.importDir(), string(a.Name)+app.FileExtension)
}

// tryImported finds out whether all apps can be made, and prints why one cannot. It changes
// nothing.
func (c *command) tryImported(ctx context.Context, found *imports.Import) (status int) {
	for _, a := range found.Starting() {
		args := []string{"--file=" + c.imported(a), "--dry-run"}
		if !a.Listens() {
			args = append(args, "--listen="+learn.Guess) // --now finds out
		}
		var told bytes.Buffer
		sub := *c.env
		sub.args, sub.stdout, sub.stderr = args, io.Discard, &told
		if status = run(ctx, &sub); status != exitSuccess {
			c.env.stderr.Write(told.Bytes())
			return status
		}
	}
	return exitSuccess
}

// makeImported makes the apps one after another. If one fails, it goes on with the next.
func (c *command) makeImported(ctx context.Context, found *imports.Import) (status int) {
	for _, a := range found.Starting() {
		sub := *c.env
		sub.args = []string{"--file=" + c.imported(a), "--now"}
		if failed := run(ctx, &sub); failed != exitSuccess {
			status = failed
		}
		if ctx.Err() != nil {
			break
		}
	}
	return status
}

// sayNext prints the commands that make the apps of the files.
func (c *command) sayNext(found *imports.Import) {
	for _, a := range found.Apps {
		if a.Skip == "" {
			c.say("To make %s: unitgen --file=%s --now", a.Name, app.ShellWord(c.imported(a)))
		}
	}
}

// environ returns the environment of this process for programs that it starts. It is empty in
// tests.
func (e *env) environ() []string {
	if e.environment == nil {
		return nil
	}
	return e.environment()
}

// judgeImport finds what is wrong with the command line of an import itself.
func (o *options) judgeImport() error {
	var found []error
	if o.name == "" {
		found = append(found, inputf("unitgen import ecosystem.config.js", "import takes the configuration file of another process manager"))
	}
	if o.now && o.dryRun {
		found = append(found, inputf("", "--now does not go with --dry-run"))
	}
	if o.given["user"] && o.userUnits {
		found = append(found, inputf("", "--user= is not possible with --user-units, whose processes all run as that user"))
	}
	return errors.Join(found...)
}
