// Package account looks up users and groups, and whether the users of an app's instances are free
// to be had.
package account

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

// The UIDs from which PID 1 takes dynamic users (systemd.io/UIDS-GIDS), which exist while their
// unit runs.
const minDynamic, maxDynamic = 61184, 65519

// Book is where accounts are looked up.
type Book struct {
	Root   string                                                                    // before /etc
	Getent func(ctx context.Context, database string, keys []string) ([]byte, error) // nil: only the files in /etc
}

// Taken is a user or group that bears a name which only dynamic users of the app's instances may
// have; empty for none. PID 1 would take such an account for a dynamic user, with all that it may
// do and read.
func (b Book) Taken(ctx context.Context, a app.App, instances []int) string {
	users := a.DynamicUsers(instances)
	if len(users) == 0 {
		return ""
	}
	for _, database := range []string{"passwd", "group"} {
		accounts, _ := b.Find(ctx, database, users...)
		for _, account := range accounts {
			if account.ID < minDynamic || account.ID > maxDynamic || account.Local {
				return account.Name
			}
		}
	}
	return ""
}

// Account is an entry of passwd(5) or group(5).
type Account struct {
	Name  string
	ID    int
	Group int  // of a user
	Local bool // it stands in /etc
}

// Find looks for entries by name or number, in the file in /etc and, on the machine itself, by
// getent(1), which knows the users of directory services too. It is not known whether there are any
// if neither can be asked.
func (b Book) Find(ctx context.Context, database string, keys ...string) (found []Account, known bool) {
	text, err := os.ReadFile(b.Root + "/etc/" + database)
	if err == nil {
		known = true
		for line := range strings.Lines(string(text)) {
			if a, ok := Parse(line); ok && (slices.Contains(keys, a.Name) || slices.Contains(keys, strconv.Itoa(a.ID))) {
				a.Local = true
				found = append(found, a)
			}
		}
	}
	if len(found) > 0 || b.Getent == nil {
		return found, known
	}
	text, err = b.Getent(ctx, database, keys)
	for line := range strings.Lines(string(text)) {
		if a, ok := Parse(line); ok {
			found = append(found, a)
		}
	}
	return found, err == nil
}

// Parse reads a line of passwd(5) or group(5).
func Parse(line string) (Account, bool) {
	fields := strings.Split(strings.TrimSpace(line), ":")
	if len(fields) < 3 {
		return Account{}, false
	}
	id, err := strconv.Atoi(fields[2])
	a := Account{Name: fields[0], ID: id}
	if len(fields) > 3 {
		a.Group, _ = strconv.Atoi(fields[3]) // of group(5) it is a list of names
	}
	return a, err == nil
}

// Getent runs getent(1). That nothing was found is no error.
func Getent(ctx context.Context, database string, keys []string) ([]byte, error) {
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
