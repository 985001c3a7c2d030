package account

import (
	"context"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/unitgen/unitgen/internal/app"
)

// User is the user of an app's instances, who may enter some directories and not others.
type User struct {
	book   Book
	user   string // empty: a dynamic one, who owns nothing
	uid    int
	groups []int
	joins  bool // groups come from a property too, and any may be among them
}

// User is the user of the instances of a; nil where nobody knows, and for root, who may enter
// all directories.
func (b Book) User(ctx context.Context, a app.App) *User {
	_, group := a.Property("Group")
	_, groups := a.Property("SupplementaryGroups")
	u := &User{book: b, user: a.User, uid: -1, joins: group || groups}
	if a.User == "" {
		return u
	}
	found, _ := b.Find(ctx, "passwd", a.User)
	if len(found) == 0 || found[0].ID == 0 {
		return nil
	}
	u.uid, u.groups = found[0].ID, []int{found[0].Group}
	text, err := os.ReadFile(b.Root + "/etc/group")
	if err != nil || !found[0].Local {
		u.joins = true // those of a directory service are not looked up
	}
	for line := range strings.Lines(string(text)) {
		fields := strings.Split(strings.TrimSpace(line), ":")
		if g, ok := Parse(line); ok && len(fields) > 3 && slices.Contains(strings.Split(fields[3], ","), found[0].Name) {
			u.groups = append(u.groups, g.ID)
		}
	}
	return u
}

// String is how a message names the user.
func (u *User) String() string {
	if u.user == "" {
		return "a user of its own"
	}
	return strconv.Quote(u.user)
}

// Owner is a user who may enter a directory that a dynamic user may not: its owner, whose program
// it is likely to be. It is a name, or a number, which --user= takes as well; empty where that is
// root and for other users.
func (u *User) Owner(ctx context.Context, dir string) string {
	st, err := os.Stat(dir)
	if err != nil || u.user != "" {
		return ""
	}
	stat, ok := st.Sys().(*syscall.Stat_t)
	if !ok || stat.Uid == 0 {
		return ""
	}
	uid := strconv.Itoa(int(stat.Uid))
	if found, _ := u.book.Find(ctx, "passwd", uid); len(found) > 0 {
		return found[0].Name
	}
	return uid
}

// Closed is the first directory above a file, in its path and behind symbolic links, that the user
// may not enter. A path that ends in "/" counts itself.
func (u *User) Closed(file string) (dir string, closed bool) {
	for _, path := range []string{file, Resolved(file)} {
		for i, c := range path {
			if c != '/' {
				continue
			}
			dir = path[:max(i, 1)]
			st, err := os.Stat(dir)
			if err == nil && !u.mayEnter(dir, st) {
				return dir, true
			}
		}
	}
	return "", false
}

// Resolved is where the symbolic links of a path lead to; empty if nowhere. A "/" at its end stays.
func Resolved(file string) string {
	path, err := filepath.EvalSymlinks(file)
	if err != nil {
		return ""
	}
	if strings.HasSuffix(file, "/") {
		path += "/"
	}
	return path
}

// mayEnter asks the mode as the kernel does (acl_permission_check() in fs/namei.c). Where there is
// an ACL beside the mode, the answer is yes.
func (u *User) mayEnter(dir string, st fs.FileInfo) bool {
	stat, ok := st.Sys().(*syscall.Stat_t)
	if !ok || !st.IsDir() {
		return true
	}
	mode := st.Mode().Perm()
	member := slices.Contains(u.groups, int(stat.Gid))
	switch {
	case int(stat.Uid) == u.uid:
		return mode&0o100 != 0
	case member || u.joins && mode&0o010 != 0:
		return mode&0o010 != 0
	case mode&0o001 != 0:
		return true
	}
	n, err := unix.Getxattr(dir, "system.posix_acl_access", nil)
	return err == nil && n > 0
}
