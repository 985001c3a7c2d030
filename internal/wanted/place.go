package wanted

import (
	"context"
	"errors"

	"github.com/unitgen/unitgen/internal/account"
	"github.com/unitgen/unitgen/internal/app"
	"github.com/unitgen/unitgen/internal/fault"
	"github.com/unitgen/unitgen/internal/plan"
	"github.com/unitgen/unitgen/internal/program"
)

// Suits makes sure that an app with n instances can be where it is wanted: that its users exist or
// not, as they must, and may enter the directories. d is what is on disk of the app. A package's
// users and directories are those of another machine, and a user's units run as that user.
func (r *Request) Suits(ctx context.Context, a app.App, d *plan.Disk, n int) error {
	if r.Site.Packaging || a.UserUnits {
		return nil
	}
	err := r.checkAccounts(ctx, a, d.After(n))
	if err == nil && placeChanges(a, d) {
		err = r.checkPlace(ctx, a)
	}
	return err
}

// checkAccounts makes sure that the user who was chosen exists, and that those who were not chosen
// do not.
func (r *Request) checkAccounts(ctx context.Context, a app.App, instances []int) error {
	if a.User != "" {
		if accounts, known := r.Accounts.Find(ctx, "passwd", a.User); known && len(accounts) == 0 {
			return fault.Input("useradd --system "+a.User, "--user= must be a user who exists, got %q", a.User)
		}
		return nil
	}
	if taken := r.Accounts.Taken(ctx, a, instances); taken != "" {
		return fault.Input("--user="+taken, "the app would run as %q, which exists here already; name the user, or give the app another name", taken)
	}
	return nil
}

// checkPlace makes sure that the app's user may enter the directory in which the program starts,
// and that of the program: PID 1 starts both as that user.
func (r *Request) checkPlace(ctx context.Context, a app.App) error {
	if a.HasOwnView() {
		return nil
	}
	who := r.Accounts.User(ctx, a)
	if who == nil {
		return nil
	}
	var found []error
	if dir, closed := who.Closed(a.WorkingDirectory + "/"); closed {
		other := "cp -a " + app.ShellWord(a.WorkingDirectory) + " /srv/"
		if isHome(a.WorkingDirectory) {
			other = "--working-directory=/"
		}
		found = append(found, fault.Input(userOr(ctx, who, dir, other),
			"--working-directory= must be a directory that the app's user may enter, and %s may not enter %s", who, dir))
	}
	for _, program := range executed(a.Command[0]) {
		if dir, closed := who.Closed(program); closed {
			found = append(found, fault.Input(userOr(ctx, who, dir, "install "+app.ShellWord(program)+" /usr/local/bin/"),
				"the command %q cannot be executed: %s may not enter %s", a.Command[0], who, dir))
		}
		for _, path := range []string{program, account.Resolved(program)} {
			if property := a.Hidden(path); property.Key != "" {
				found = append(found, fault.Input("-p "+property.Key+"="+property.Value,
					"the command %q needs %s, which the sandbox hides", a.Command[0], path))
			}
		}
	}
	return errors.Join(found...)
}

// userOr is --user= with a user who may enter a directory, else other.
func userOr(ctx context.Context, who *account.User, dir, other string) string {
	if user := who.Owner(ctx, dir); user != "" {
		return "--user=" + user
	}
	return other
}

// executed are the files that are executed for a command: its own, and the interpreter of a script,
// which a virtual environment may have in another place.
func executed(command string) []string {
	files := []string{command}
	if words, _ := program.Script(command); len(words) > 0 {
		files = append(files, words[0])
	}
	return files
}

// placeChanges reports whether an app is new, or starts as another user, elsewhere or by another
// program.
func placeChanges(a app.App, d *plan.Disk) bool {
	return d.App == nil || a.User != d.App.User || a.WorkingDirectory != d.App.WorkingDirectory || a.Command[0] != d.App.Command[0]
}
