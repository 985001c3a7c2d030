package explain

import (
	"context"
	"fmt"
	"io/fs"
	"os"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"

	"github.com/unitgen/unitgen/internal/app"
)

// hiddenHome explains a path in a home directory, which ProtectHome=yes hides.
func (c *caseFile) hiddenHome(what, path string) Reason {
	option := "-p ProtectHome=read-only"
	if _, owner := existing(path); owner != "" && owner != "root" && owner != c.set.user {
		option = "--user=" + owner + " " + option
	}
	return Reason{What: "the sandbox hides home directories, and so " + what, Hint: c.options("%s", option)}
}

func (c *caseFile) hiddenTmp(path string) Reason {
	return Reason{What: fmt.Sprintf("the program has its own /tmp, without %s", path), Hint: c.options("%s", app.TmpHint(path))}
}

// denied explains a path that the program's user may not use: it names the first part of the path
// that is in the way.
func (c *caseFile) denied(path, verb string) Reason {
	who := "the program's user"
	switch {
	case c.set.dynamic:
		who = "the program's user, which systemd creates,"
	case c.set.user != "":
		who = "user " + c.set.user
	}
	r := Reason{What: fmt.Sprintf("%s may not %s %s", who, verb, path)}
	for _, part := range parents(path) {
		st, err := os.Stat(part)
		if err != nil {
			break
		}
		need := fs.FileMode(0o004)
		if st.IsDir() {
			need = 0o001
		} else if verb == "execute" {
			need = 0o005
			if isELF(part) {
				need = 0o001
			}
		}
		if st.Mode().Perm()&need == need {
			continue
		}
		owner := ownerOf(st)
		if part == path {
			r.What += fmt.Sprintf(": it belongs to %s and has mode %04o", owner, st.Mode().Perm())
		} else {
			r.What += fmt.Sprintf(": %s belongs to %s and has mode %04o", part, owner, st.Mode().Perm())
		}
		if owner != "root" && owner != c.set.user {
			r.Hint = c.options("--user=%s", owner)
		} else {
			r.Hint = "chmod " + map[fs.FileMode]string{0o001: "o+x", 0o004: "o+r", 0o005: "o+rx"}[need] + " " + app.ShellWord(part)
		}
		break
	}
	return r
}

func isELF(path string) bool { return strings.HasPrefix(string(readHead(path)), "\x7fELF") }

// parents are the directories that lead to path, outermost first, and path itself.
func parents(path string) []string {
	all := []string{path}
	for path != "/" && path != "." {
		path = filepath.Dir(path)
		all = append(all, path)
	}
	slices.Reverse(all)
	return all
}

// existing returns path or the nearest directory above that exists, and the name of its owner.
func existing(path string) (dir, owner string) {
	for path != "/" && path != "." {
		if st, err := os.Stat(path); err == nil {
			return path, ownerOf(st)
		}
		path = filepath.Dir(path)
	}
	return "/", "root"
}

func isDir(path string) bool {
	st, err := os.Stat(path)
	return err == nil && st.IsDir()
}

// ownerOf returns the owner's name, or number if there is no name.
func ownerOf(st fs.FileInfo) string {
	sys, ok := st.Sys().(*syscall.Stat_t)
	if !ok {
		return ""
	}
	text := strconv.FormatUint(uint64(sys.Uid), 10)
	if u, err := user.LookupId(text); err == nil {
		return u.Username
	}
	return text
}

// Holder names the listener on a TCP port of the host: a process and its unit, or a socket unit for
// which PID 1 listens. It is empty if no listener is visible.
func (q Question) Holder(ctx context.Context, port int) string {
	h, ok := FindHolder(port)
	switch {
	case !ok:
		return ""
	case h.PID != 1:
		return h.String()
	}
	units, err := q.Conn.ListUnits(ctx, "*.socket")
	if err != nil {
		return "a socket unit"
	}
	for _, u := range units {
		if u.ActiveState != "active" {
			continue
		}
		values, err := q.Conn.Properties(ctx, u.Name, "Listen")
		if err != nil {
			continue
		}
		listen, _ := values["Listen"].([][]any)
		for _, l := range listen {
			if address, ok := l[1].(string); ok && strings.HasSuffix(address, ":"+strconv.Itoa(port)) {
				return u.Name
			}
		}
	}
	return "a socket unit"
}
