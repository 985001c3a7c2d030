package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os/exec"
	"strconv"
	"strings"
	"time"

	"github.com/unitgen/unitgen/internal/app"
)

// logs prints what the balancer, the instances and PID 1 say of an app or of one instance, in the order of the journal, each line
// behind its instance. With arguments of journalctl it becomes that, and with --json= too, for its own format.
func (c *command) logs(ctx context.Context) error {
	name, units, err := c.logUnits()
	if err != nil {
		return err
	}
	argv := []string{"journalctl"}
	if c.site.UserUnits {
		argv = append(argv, "--user")
	}
	for _, unit := range units {
		argv = append(argv, "--unit="+unit)
	}
	if c.options.follow {
		argv = append(argv, "--follow")
	}
	if c.options.since != "" {
		argv = append(argv, "--since="+c.options.since)
	}
	switch {
	case c.options.hasCommand:
		return c.env.exec(append(argv, c.options.command...))
	case c.options.json == "short":
		return c.env.exec(append(argv, "--output=json", "--no-pager"))
	case c.options.json == "pretty":
		return c.env.exec(append(argv, "--output=json-pretty", "--no-pager"))
	case !c.options.follow && c.options.since == "":
		argv = append(argv, "--lines="+logLines)
	}
	return c.interleave(ctx, name, append(argv, "--output=json", "--output-fields="+logFields, "--no-pager"))
}

// logLines is how many lines are printed of a journal that may have millions, unless somebody says since when.
const logLines = "100"

// logFields are those that are read. Without --all journalctl prints none of more than 4096 bytes.
const logFields = "MESSAGE,PRIORITY,SYSLOG_IDENTIFIER,_PID,_SYSTEMD_UNIT,_SYSTEMD_USER_UNIT,UNIT,USER_UNIT"

// logUnits are the units that the command line names.
func (c *command) logUnits() (app.Name, []string, error) {
	if c.options.name == "" {
		_, err := c.appName()
		return "", nil, err
	}
	word, number, one := strings.Cut(c.options.name, "@")
	name, err := app.ParseName(word)
	if err != nil {
		return "", nil, err
	}
	if !c.site.Has(name) {
		hint := "journalctl -u " + name.Service()
		if c.site.UserUnits {
			hint = "journalctl --user -u " + name.Service()
		}
		return "", nil, inputf(hint, "there is no app %q; its old messages may still be in the journal", name)
	}
	if !one {
		return name, []string{name.Service(), string(name) + ".socket", string(name) + "@*", string(name) + "-join@*"}, nil
	}
	i, ok := app.ParseInstance(number)
	if !ok {
		return "", nil, inputf("unitgen logs "+app.ShellWord(word+"@1"), "the instance must be a number from 1 to %s, got %q", strconv.Itoa(app.MaxInstances), number)
	}
	return name, []string{name.Instance(i), name.InstanceSocket(i), name.Join(i)}, nil
}

// interleave runs journalctl and prints its entries as lines.
func (c *command) interleave(ctx context.Context, name app.Name, argv []string) error {
	journal := exec.CommandContext(ctx, argv[0], argv[1:]...)
	journal.Stderr = c.env.stderr
	out, err := journal.StdoutPipe()
	if err != nil {
		return err
	}
	if err := journal.Start(); err != nil {
		return err
	}
	readErr := c.printEntries(name, out)
	if readErr != nil {
		journal.Process.Kill() // nobody reads on
	}
	err = journal.Wait()
	if ctx.Err() != nil {
		return nil // that is how --follow ends
	}
	var exit *exec.ExitError
	if errors.As(err, &exit) && readErr == nil {
		return fmt.Errorf("journalctl: %w", err)
	}
	return errors.Join(readErr)
}

// printEntries prints entries until there are no more.
func (c *command) printEntries(name app.Name, journal io.Reader) error {
	entries := json.NewDecoder(bufio.NewReader(journal))
	width := len(name)
	for {
		var e logEntry
		if err := entries.Decode(&e); err != nil {
			if errors.Is(err, io.EOF) {
				return nil
			}
			return fmt.Errorf("read journal: %w", err)
		}
		who, number := e.who(name)
		width = max(width, len(who))
		message := e.text()
		if e.PID == "1" && e.Identifier == "systemd" {
			message = "systemd: " + message
		}
		if e.Priority != "" && e.Priority <= "3" && c.coloured() == yes {
			message = red + message + plain
		}
		prefix := fmt.Sprintf("%-*s", width, who)
		if c.coloured() == yes {
			prefix = instanceColour(number) + prefix + plain
		}
		if _, err := fmt.Fprintf(c.env.stdout, "%s %s %s\n", e.when(c.env.now()), prefix, message); err != nil {
			return fmt.Errorf("write: %w", err)
		}
	}
}

// logEntry is one entry of the journal. Fields are absent, or null if they are too long.
type logEntry struct {
	Time       string          `json:"__REALTIME_TIMESTAMP"`
	Message    json.RawMessage `json:"MESSAGE"` // text, or the numbers of bytes that are none
	Priority   string          `json:"PRIORITY"`
	Identifier string          `json:"SYSLOG_IDENTIFIER"`
	PID        string          `json:"_PID"`
	Unit       string          `json:"_SYSTEMD_UNIT"`
	UserUnit   string          `json:"_SYSTEMD_USER_UNIT"`
	About      string          `json:"UNIT"` // of PID 1's messages
	UserAbout  string          `json:"USER_UNIT"`
}

// who is the unit that an entry is of or about, in few words, and the number of its instance; 0 for none.
func (e logEntry) who(name app.Name) (word string, number int) {
	unit := firstOf(firstOf(e.About, e.UserAbout), firstOf(e.UserUnit, e.Unit))
	part, _ := name.ParseUnit(unit)
	return printable(strings.TrimSuffix(unit, ".service")), part.Instance
}

func (e logEntry) text() string {
	var text string
	if json.Unmarshal(e.Message, &text) == nil && string(e.Message) != "null" {
		return printable(text)
	}
	var bytes []byte
	var numbers []int
	if json.Unmarshal(e.Message, &numbers) != nil || numbers == nil {
		return "(a line of more than 4096 bytes)"
	}
	for _, n := range numbers {
		bytes = append(bytes, byte(n))
	}
	return printable(string(bytes))
}

// when is the time of the entry, with the day where that is not today.
func (e logEntry) when(now time.Time) string {
	µs, _ := strconv.ParseInt(e.Time, 10, 64)
	at := time.UnixMicro(µs).In(now.Location())
	if at.Format(time.DateOnly) == now.Format(time.DateOnly) {
		return at.Format(time.TimeOnly)
	}
	return at.Format("Jan _2 15:04:05")
}

// instanceColour tells instances apart; the balancer has none.
func instanceColour(number int) string {
	if number == 0 {
		return plain
	}
	colours := [...]int{36, 35, 34, 32, 33, 96, 95, 94, 92, 93}
	return fmt.Sprintf("\x1b[%dm", colours[(number-1)%len(colours)])
}
