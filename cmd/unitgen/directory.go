package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/unitgen/unitgen/internal/account"
	"github.com/unitgen/unitgen/internal/app"
	"github.com/unitgen/unitgen/internal/plan"
	"github.com/unitgen/unitgen/internal/program"
)

// directory reads --working-directory=.
func (c *command) directory(text string) (string, error) {
	dir := c.absolute(text)
	if st, err := os.Stat(dir); !c.site.Packaging && (err != nil || !st.IsDir()) {
		return "", inputf("mkdir "+app.ShellWord(text), "--working-directory= must be a directory that exists, got %q", text)
	}
	return dir, nil
}

// setDirectory is where an app starts that does not say it. A new app starts where the user stands, as it would from a shell:
// "gunicorn app:app" finds its module there, "caddy run" its Caddyfile. A package's app, and one of a file, start in /, as nobody
// stands anywhere when they are installed; but a file's, where an argument names a file beside it.
func (c *command) setDirectory(a *app.App, isNew bool) {
	if c.options.given["working-directory"] {
		return
	}
	dir := c.commandDir()
	if !isNew || c.site.Packaging || len(a.Command) == 0 || dir == "" || dir == "/" {
		return
	}
	about := strings.HasPrefix(a.Command[0], dir+"/") || slices.ContainsFunc(a.Command[1:], relative)
	switch {
	case c.file != nil && !c.namesFile(a, dir), isHome(dir) && !about:
	default:
		a.WorkingDirectory = dir
	}
}

// isHome knows the directories in which people stand without a reason. Apps that start there could see all home directories.
func isHome(dir string) bool {
	return filepath.Dir(dir) == "/home" || dir == "/root" || dir == "/tmp" || dir == "/var/tmp"
}

// namesFile reports whether an argument of the command is a file in dir.
func (c *command) namesFile(a *app.App, dir string) bool {
	return slices.ContainsFunc(a.Command[1:], func(arg string) bool {
		if !relative(arg) {
			return false
		}
		if a.Kind == app.KindNode {
			return true // of a module too: "node dist", "node ."
		}
		st, err := os.Stat(join(dir, arg))
		return err == nil && st.Mode().IsRegular()
	})
}

// relative reports whether an argument may name something in the directory in which the program starts.
func relative(arg string) bool {
	return arg != "" && arg[0] != '-' && !filepath.IsAbs(arg)
}

// accounts are the users of the machine.
func (c *command) accounts() account.Book {
	return account.Book{Root: c.env.root, Getent: c.env.getent}
}

// checkAccounts makes sure that the user who was chosen exists, and that those who were not chosen do not. A package's users
// are those of another machine.
func (c *command) checkAccounts(ctx context.Context, a app.App, instances []int) error {
	if c.site.Packaging || a.UserUnits {
		return nil
	}
	if a.User != "" {
		if accounts, known := c.accounts().Find(ctx, "passwd", a.User); known && len(accounts) == 0 {
			return inputf("useradd --system "+a.User, "--user= must be a user who exists, got %q", a.User)
		}
		return nil
	}
	if taken := c.accounts().Taken(ctx, a, instances); taken != "" {
		return inputf("--user="+taken, "the app would run as %q, which exists here already; name the user, or give the app another name", taken)
	}
	return nil
}

// checkPlace makes sure that the app's user may enter the directory in which the program starts, and that of the program: PID 1
// starts both as that user.
func (c *command) checkPlace(ctx context.Context, a app.App) error {
	if c.site.Packaging || a.UserUnits || changesView(a) {
		return nil
	}
	who := c.visitor(ctx, a)
	if who == nil {
		return nil
	}
	var found []error
	if wall, closed := who.wall(a.WorkingDirectory + "/"); closed {
		other := "cp -a " + app.ShellWord(a.WorkingDirectory) + " /srv/"
		if isHome(a.WorkingDirectory) {
			other = "--working-directory=/"
		}
		found = append(found, inputf(who.hint(wall, other),
			"--working-directory= must be a directory that the app's user may enter, and %s may not enter %s", who, wall))
	}
	for _, program := range executed(a.Command[0]) {
		if wall, closed := who.wall(program); closed {
			found = append(found, inputf(who.hint(wall, "install "+app.ShellWord(program)+" /usr/local/bin/"),
				"the command %q cannot be executed: %s may not enter %s", a.Command[0], who, wall))
		}
		for _, path := range []string{program, resolved(program)} {
			if property := a.Hidden(path); property.Key != "" {
				found = append(found, inputf("-p "+property.Key+"="+property.Value,
					"the command %q needs %s, which the sandbox hides", a.Command[0], path))
			}
		}
	}
	return errors.Join(found...)
}

// executed are the files that are executed for a command: its own, and the interpreter of a script, which a virtual environment
// may have in another place.
func executed(command string) []string {
	files := []string{command}
	if words, _ := program.Script(command); len(words) > 0 {
		files = append(files, words[0])
	}
	return files
}

// placeChanges reports whether an app is new, or starts as another user, elsewhere or by another program.
func (c *command) placeChanges(a app.App, d *plan.Disk) bool {
	return d.App == nil || a.User != d.App.User || a.WorkingDirectory != d.App.WorkingDirectory || a.Command[0] != d.App.Command[0]
}

// changesView reports whether a setting gives the instances other files, or other rights to them, than this machine shows.
func changesView(a app.App) bool {
	for _, key := range []string{"RootDirectory", "RootImage", "BindPaths", "BindReadOnlyPaths", "TemporaryFileSystem", "MountImages",
		"ExtensionImages", "ExtensionDirectories", "AmbientCapabilities", "DynamicUser"} {
		if _, ok := a.Property(key); ok {
			return true
		}
	}
	return false
}

// visitor is the user of an app's instances, who may enter some directories.
type visitor struct {
	user   string // empty: a dynamic one, who owns nothing
	uid    int
	groups []int
	joins  bool // groups come from a property too, and any may be among them
}

func (v *visitor) String() string {
	if v.user == "" {
		return "a user of its own"
	}
	return strconv.Quote(v.user)
}

// hint names the owner of a directory, whose program it is likely to be; for root's own it is other.
func (v *visitor) hint(wall, other string) string {
	st, err := os.Stat(wall)
	if err == nil && v.user == "" {
		if stat := st.Sys().(*syscall.Stat_t); stat.Uid != 0 {
			return fmt.Sprintf("--user=%s", ownerName(int(stat.Uid)))
		}
	}
	return other
}

// ownerName is the name of a local user, else the number, which --user= takes as well.
func ownerName(uid int) string {
	text, _ := os.ReadFile("/etc/passwd")
	for line := range strings.Lines(string(text)) {
		if a, ok := account.Parse(line); ok && a.ID == uid {
			return a.Name
		}
	}
	return strconv.Itoa(uid)
}

// visitor is nil where that cannot be known, and for root.
func (c *command) visitor(ctx context.Context, a app.App) *visitor {
	_, group := a.Property("Group")
	_, groups := a.Property("SupplementaryGroups")
	v := &visitor{user: a.User, uid: -1, joins: group || groups}
	if a.User == "" {
		return v
	}
	found, _ := c.accounts().Find(ctx, "passwd", a.User)
	if len(found) == 0 || found[0].ID == 0 {
		return nil
	}
	v.uid, v.groups = found[0].ID, []int{found[0].Group}
	text, err := os.ReadFile(c.env.root + "/etc/group")
	if err != nil || !found[0].Local {
		v.joins = true // those of a directory service are not looked up
	}
	for line := range strings.Lines(string(text)) {
		fields := strings.Split(strings.TrimSpace(line), ":")
		if g, ok := account.Parse(line); ok && len(fields) > 3 && slices.Contains(strings.Split(fields[3], ","), found[0].Name) {
			v.groups = append(v.groups, g.ID)
		}
	}
	return v
}

// wall is the first directory above a file, in path and behind symbolic links, that the visitor may not enter.
func (v *visitor) wall(file string) (dir string, closed bool) {
	for _, path := range []string{file, resolved(file)} {
		for i, c := range path {
			if c != '/' {
				continue
			}
			dir = path[:max(i, 1)]
			st, err := os.Stat(dir)
			if err == nil && !v.mayEnter(dir, st) {
				return dir, true
			}
		}
	}
	return "", false
}

// resolved is where symbolic links lead to; empty if nowhere.
func resolved(file string) string {
	path, err := filepath.EvalSymlinks(file)
	if err == nil && strings.HasSuffix(file, "/") {
		path += "/"
	}
	if err != nil {
		return ""
	}
	return path
}

// mayEnter asks the mode as the kernel does (acl_permission_check() in fs/namei.c). Where there is an ACL beside it, it is taken
// for yes.
func (v *visitor) mayEnter(dir string, st fs.FileInfo) bool {
	stat, ok := st.Sys().(*syscall.Stat_t)
	if !ok || !st.IsDir() {
		return true
	}
	mode := st.Mode().Perm()
	member := slices.Contains(v.groups, int(stat.Gid))
	switch {
	case int(stat.Uid) == v.uid:
		return mode&0o100 != 0
	case member || v.joins && mode&0o010 != 0:
		return mode&0o010 != 0
	case mode&0o001 != 0:
		return true
	}
	n, err := unix.Getxattr(dir, "system.posix_acl_access", nil)
	return err == nil && n > 0
}
