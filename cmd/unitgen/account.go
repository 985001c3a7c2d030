package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/unitgen/unitgen/internal/app"
)

// The UIDs from which PID 1 takes dynamic users (systemd.io/UIDS-GIDS), which exist while their unit runs.
const minDynamic, maxDynamic = 61184, 65519

// checkAccounts makes sure that the user who was chosen exists, and that those who were not chosen do not: PID 1 takes an
// account of that name for a dynamic user, with all that it may do and read. A package's users are those of another machine.
func (c *command) checkAccounts(ctx context.Context, a app.App, instances []int) error {
	if c.site.Packaging || a.UserUnits {
		return nil
	}
	if a.User != "" {
		if accounts, known := c.accounts(ctx, "passwd", a.User); known && len(accounts) == 0 {
			return inputf("useradd --system "+a.User, "--user= must be a user who exists, got %q", a.User)
		}
		return nil
	}
	if taken := c.takenUser(ctx, a, instances); taken != "" {
		return inputf("--user="+taken, "the app would run as %q, which exists here already; name the user, or give the app another name", taken)
	}
	return nil
}

// takenUser is a user or group that bears a name which only dynamic users of the app's instances may have; empty for none.
func (c *command) takenUser(ctx context.Context, a app.App, instances []int) string {
	users := a.DynamicUsers(instances)
	if len(users) == 0 {
		return ""
	}
	for _, database := range []string{"passwd", "group"} {
		accounts, _ := c.accounts(ctx, database, users...)
		for _, account := range accounts {
			if account.id < minDynamic || account.id > maxDynamic || account.local {
				return account.name
			}
		}
	}
	return ""
}

// account is an entry of passwd(5) or group(5).
type account struct {
	name  string
	id    int
	group int  // of a user
	local bool // it stands in /etc
}

// accounts looks for entries by name or number, in the file in /etc and, on the machine itself, by getent(1), which knows the
// users of directory services too. It is not known whether there are any if neither can be asked.
func (c *command) accounts(ctx context.Context, database string, keys ...string) (found []account, known bool) {
	text, err := os.ReadFile(c.env.root + "/etc/" + database)
	if err == nil {
		known = true
		for line := range strings.Lines(string(text)) {
			if a, ok := parseAccount(line); ok && (slices.Contains(keys, a.name) || slices.Contains(keys, strconv.Itoa(a.id))) {
				a.local = true
				found = append(found, a)
			}
		}
	}
	if len(found) > 0 || c.env.getent == nil {
		return found, known
	}
	text, err = c.env.getent(ctx, database, keys)
	for line := range strings.Lines(string(text)) {
		if a, ok := parseAccount(line); ok {
			found = append(found, a)
		}
	}
	return found, err == nil
}

func parseAccount(line string) (account, bool) {
	fields := strings.Split(strings.TrimSpace(line), ":")
	if len(fields) < 3 {
		return account{}, false
	}
	id, err := strconv.Atoi(fields[2])
	a := account{name: fields[0], id: id}
	if len(fields) > 3 {
		a.group, _ = strconv.Atoi(fields[3]) // of group(5) it is a list of names
	}
	return a, err == nil
}

// getent runs getent(1). That nothing was found is no error.
func getent(ctx context.Context, database string, keys []string) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second) // a directory server that is away; a user is not worth a longer wait
	defer cancel()
	cmd := exec.CommandContext(ctx, "getent", append([]string{"--", database}, keys...)...)
	out, err := cmd.Output()
	if cmd.ProcessState != nil && cmd.ProcessState.ExitCode() == 2 {
		return out, nil
	}
	if err != nil {
		return nil, fmt.Errorf("run getent: %w", err)
	}
	return out, nil
}
