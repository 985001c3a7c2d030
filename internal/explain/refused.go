package explain

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/unitgen/unitgen/internal/app"
	"github.com/unitgen/unitgen/internal/program"
)

// refusal is a call that the kernel refused, as programs of all languages report it: by the text of
// strerror(3) or by the errno's name.
type refusal struct {
	pattern func() *regexp.Regexp
	explain func(c *caseFile, ctx context.Context, m message) Reason
}

// message is a line about a refusal, with the lines around it: frames of a stack that name the
// call.
type message struct{ line, near string }

// refusals in the order in which they are looked for: those that say more come first.
var refusals = []refusal{
	{pattern(`(?i)EADDRINUSE|address( is)? already in use|address in use|connection in use`), (*caseFile).inUse},
	{pattern(`EADDRNOTAVAIL|(?i)cannot assign requested address`), (*caseFile).noAddress},
	{pattern(`EROFS|(?i)read-only file ?system|attempt to write a readonly database`), (*caseFile).readOnly},
	{pattern(`EAFNOSUPPORT|(?i)address family not supported|unknown system error -?97`), (*caseFile).family},
	{pattern(`(?i)write.?\+?.?exec|executable (memory|stack)|memory page as executable|mprotect|segment prot|PROT_EXEC`), (*caseFile).executableMemory},
	{pattern(`EPERM|(?i)operation not permitted`), (*caseFile).notPermitted},
	{pattern(`EACCES|(?i)permission denied`), (*caseFile).permission},
	{pattern(`ENOENT|(?i)no such file or directory|unable to open database file`), (*caseFile).notFound},
}

// refusedBySandbox explains a program that ended as a call was refused to it. A call that fails is
// nothing by itself: programs try paths one after another. So the line must be the telling one, or
// near it.
func (c *caseFile) refusedBySandbox(ctx context.Context, in *invocation) Reason {
	if in.seen != nil && in.seen.Outcome != Ended && in.seen.Outcome != Other {
		return Reason{}
	}
	said := telling(in.said)
	if said == "" {
		return Reason{}
	}
	at := slices.Index(in.said, said)
	if at < 0 {
		at = 0 // the cause of a Java exception is a part of its line
	}
	near := in.said[max(0, at-5):min(len(in.said), at+3)]
	for _, line := range append([]string{said}, near[min(len(near), at, 5):]...) {
		for _, r := range refusals {
			if !r.pattern().MatchString(line) {
				continue
			}
			if reason := r.explain(c, ctx, message{line, strings.Join(near, "\n")}); reason.What != "" {
				reason.Said = line
				return reason
			}
		}
	}
	return Reason{}
}

// portPattern finds the port of an address in a message: "0.0.0.0:80", ":::80", ":80", "port 80",
// "('0.0.0.0', 80)", "port: 80".
var portPattern = pattern(`(?i)(?:port[ :=]+|(?:^| |[\d.\]:*a-z]):|', ?)(\d{1,5})\b`)

// portIn is the port that a line names; 0 for none.
func portIn(line string) (port int) {
	for _, match := range portPattern().FindAllStringSubmatch(line, -1) {
		if n, err := strconv.Atoi(match[1]); err == nil && n > 0 && n <= 65535 {
			port = n
		}
	}
	return port
}

// isOwn reports whether a port is the app's.
func (c *caseFile) isOwn(port int) bool {
	return slices.ContainsFunc(c.set.app.Listen, func(l app.Listen) bool { return int(l.Port) == port })
}

// inUse explains EADDRINUSE, of the app's port, which systemd holds for the program, or of another
// port.
func (c *caseFile) inUse(ctx context.Context, m message) Reason {
	port := portIn(m.line)
	if port == 0 {
		port = c.commandPort()
	}
	if port == 0 && len(c.set.app.Listen) > 0 {
		// Runtimes such as Python's do not name the port. A program that opens its port by itself
		// usually means the app's port.
		port = int(c.set.app.Listen[0].Port)
	}
	if c.isOwn(port) {
		return c.ownPort(port)
	}
	what := fmt.Sprintf("the program opens port %d, which is in use", port)
	if who := c.Holder(ctx, port); who != "" {
		what += " by " + who
	}
	return Reason{What: what, Hint: fmt.Sprintf("ss -ltnp 'sport = :%d'", port)}
}

// ownPort explains a program that opens the app's port by itself.
func (c *caseFile) ownPort(port int) Reason {
	if c.set.app.BindAnswered() {
		r := Reason{What: fmt.Sprintf("the program opens port %d, which systemd holds for it, and was not given it", port)}
		if slices.ContainsFunc(c.set.app.Listen, func(l app.Listen) bool { return int(l.Port) == port && !l.Addr.IsValid() }) {
			r.What += "; a port without an address is IPv6" // which a program for IPv4 could not use
			r.Hint = c.options("--listen=0.0.0.0:%d", port)
			return r
		}
		r.What += "; it may bind by io_uring, which the balancer cannot answer"
		r.Hint = c.options("-p SystemCallFilter=~io_uring_setup")
		return r
	}
	r := Reason{What: fmt.Sprintf("the program opens port %d by itself, which systemd holds for it: "+
		"it must take the socket that it is given (descriptor 3, sd_listen_fds(3))", port)}
	switch {
	case c.set.app.Kind == app.KindNode || c.set.app.DataPath() == app.PathHandoff:
	case slices.ContainsFunc(c.set.app.Command[:min(len(c.set.app.Command), 2)], program.IsNode):
		r.Hint = c.options("--kind=node")
	default:
		r.Hint = c.options("--kind=bind")
	}
	return r
}

// commandPort is a port of the app, or one in use, that stands in the command; 0 for none.
func (c *caseFile) commandPort() int {
	for _, word := range c.set.app.Command {
		for _, m := range regexp.MustCompile(`(?:^|[:=])(\d{2,5})$`).FindAllStringSubmatch(word, 1) {
			if n, err := strconv.Atoi(m[1]); err == nil && n <= 65535 {
				return n
			}
		}
	}
	return 0
}

func (c *caseFile) noAddress(_ context.Context, _ message) Reason {
	return Reason{What: "the program opens an address that this host does not have"}
}

// readOnly explains EROFS: with ProtectSystem=strict a program can write only to the paths that its
// settings open.
func (c *caseFile) readOnly(_ context.Context, m message) Reason {
	path := c.pathIn(m.line)
	if path == "" {
		return Reason{What: "the program writes to a place that is read-only in the sandbox; it may write to its state directory, $STATE_DIRECTORY",
			Hint: c.options("-p StateDirectory=%s", c.App)}
	}
	return c.writable(path)
}

// writable is what to type so that the program can write path.
func (c *caseFile) writable(path string) Reason {
	what := fmt.Sprintf("the program writes to %s, which is read-only in the sandbox", path)
	for _, d := range []struct{ below, setting string }{
		{"/var/lib", "StateDirectory"}, {"/var/cache", "CacheDirectory"}, {"/var/log", "LogsDirectory"}, {"/run", "RuntimeDirectory"},
	} {
		if rest, ok := strings.CutPrefix(path, d.below+"/"); ok {
			first, _, _ := strings.Cut(rest, "/")
			return Reason{What: what, Hint: c.options("-p %s=%s", d.setting, app.ShellWord(first))}
		}
	}
	dir, owner := existing(filepath.Dir(path))
	if isDir(path) {
		dir, owner = existing(path)
	}
	if owner != "" && owner != "root" && owner != c.set.user {
		return Reason{What: what, Hint: c.options("--user=%s -p ReadWritePaths=%s", owner, app.ShellWord(dir))}
	}
	if owner != "" && owner == c.set.user {
		return Reason{What: what, Hint: c.options("-p ReadWritePaths=%s", app.ShellWord(dir))}
	}
	return Reason{What: what + "; it may write to its state directory, $STATE_DIRECTORY", Hint: c.options("-p StateDirectory=%s", c.App)}
}

// familyName finds the name of a family as programs and their sources write it; the kernel's
// message does not have it.
var familyName = pattern(`\bAF_[A-Z0-9]+\b`)

func (c *caseFile) family(_ context.Context, m message) Reason {
	const what = "the program opens a kind of socket that the sandbox refuses"
	family := familyName().FindString(m.near)
	switch {
	case c.set.privateNetwork && (family == "" || strings.HasPrefix(family, "AF_INET")):
		return Reason{What: what + ", as it has no network (PrivateNetwork=)", Hint: c.options("-p PrivateNetwork=no")}
	case family == "" && strings.Contains(strings.ToLower(m.near), "interface"):
		family = "AF_NETLINK" // getifaddrs(3)
	case family == "":
		return Reason{What: what, Hint: c.options("-p RestrictAddressFamilies=")}
	}
	return Reason{What: what + ": " + family, Hint: c.options("-p RestrictAddressFamilies=%s", family)}
}

func (c *caseFile) executableMemory(_ context.Context, _ message) Reason {
	if !c.set.noExec {
		return Reason{}
	}
	return Reason{What: "the program makes machine code while it runs, which the sandbox refuses", Hint: c.options("-p MemoryDenyWriteExecute=no")}
}

// notPermitted explains EPERM, with which the system call filter answers.
func (c *caseFile) notPermitted(ctx context.Context, m message) Reason {
	lower := strings.ToLower(m.near)
	has := func(words ...string) bool {
		return slices.ContainsFunc(words, func(w string) bool { return strings.Contains(lower, w) })
	}
	switch {
	case has("mmap", "mprotect", "prot_exec", "ffi"):
		return c.executableMemory(ctx, m)
	case has("setuid", "setgid", "setgroups", "initgroups", "seteuid", "change user", "set user", "drop priv", "su:"):
		return c.asAnother("the program changes its user", "setuid")
	case has("chown"):
		return c.asAnother("the program changes the owner of a file", "chown")
	case has("nice", "priority", "sched", "mlock", "rlimit", "affinity", "ioprio"):
		return Reason{What: "the program changes its priority or limits, which the sandbox refuses", Hint: c.options("-p SystemCallFilter=@resources")}
	case has("unshare", "namespace", "clone"):
		return Reason{What: "the program makes namespaces, which the sandbox refuses", Hint: c.options("-p RestrictNamespaces=no")}
	case has("chmod"):
		return Reason{What: "the program changes the mode of a file, which the sandbox refuses", Hint: c.options("-p RestrictSUIDSGID=no")}
	}
	return Reason{What: "the program makes a system call that the sandbox refuses (SystemCallFilter=, capabilities(7))",
		Hint: c.options("-p SystemCallFilter=@privileged")}
}

// asAnother explains calls such as setuid(2) and chown(2). Many programs set the user that they
// already have, as gunicorn's workers do, which needs no privilege. If these calls are allowed and
// still refused, the program wants to be another user.
func (c *caseFile) asAnother(what, call string) Reason {
	if slices.Contains(c.set.calls, call) {
		return Reason{What: what + ", which needs a privilege: systemd can start it as the right user", Hint: c.options("--user=NAME")}
	}
	return Reason{What: what + ", which the sandbox refuses", Hint: c.options("-p SystemCallFilter=@%s", call)}
}

// permission explains EACCES, of a low port, of a path that the sandbox hides, or of a path that
// the user may not use.
func (c *caseFile) permission(ctx context.Context, m message) Reason {
	path := c.pathIn(m.line)
	lower := strings.ToLower(m.near)
	switch {
	case path == "" && (strings.Contains(lower, "mmap") || strings.Contains(lower, "prot_exec")):
		return c.executableMemory(ctx, m)
	case path == "" && regexp.MustCompile(`\b(bind|listen)`).MatchString(lower):
		return Reason{What: "the program opens a port below 1024 by itself, which needs a privilege; systemd opens it: --listen=PORT",
			Hint: c.options("--listen=PORT")}
	case path == "":
		return Reason{}
	case c.set.protectHome && isHome(path):
		return c.hiddenHome(path, path)
	case c.set.privateDevices && below(path, "/dev"):
		return Reason{What: "the sandbox hides " + path, Hint: c.options("-p PrivateDevices=no")}
	}
	return c.denied(path, "use")
}

// notFound explains ENOENT, of a path that the sandbox hides, that is relative to another
// directory, or that is missing.
func (c *caseFile) notFound(_ context.Context, m message) Reason {
	path := c.pathIn(m.line)
	if path == "" {
		return Reason{}
	}
	if r := c.hidden(path); r.What != "" {
		return r
	}
	if script := c.script(); script != "" {
		name, err := filepath.Rel(c.set.workingDirectory, path)
		if dir := filepath.Dir(script); err == nil && dir != c.set.workingDirectory {
			if _, err := os.Lstat(filepath.Join(dir, name)); err == nil {
				return Reason{What: fmt.Sprintf("the program looks for %s in %s, where it starts", name, c.set.workingDirectory),
					Hint: c.options("--working-directory=%s", app.ShellWord(dir))}
			}
		}
	}
	if below(path, "/var/lib") || below(path, "/var/cache") || below(path, "/var/log") || below(path, "/run") {
		r := c.writable(path)
		r.What = fmt.Sprintf("the program uses %s, which does not exist", path)
		return r
	}
	return Reason{}
}

// hidden explains a path that exists on the host, and not in the sandbox.
func (c *caseFile) hidden(path string) Reason {
	if path == "" {
		return Reason{}
	}
	if _, err := os.Lstat(path); err != nil {
		return Reason{}
	}
	switch {
	case c.set.protectHome && isHome(path):
		return c.hiddenHome(path, path)
	case c.set.privateTmp && (below(path, "/tmp") || below(path, "/var/tmp")):
		return c.hiddenTmp(path)
	case c.set.privateDevices && below(path, "/dev"):
		return Reason{What: "the sandbox hides " + path, Hint: c.options("-p PrivateDevices=no")}
	}
	return Reason{}
}

// tokens finds possible paths: quoted words, and words that begin with a slash.
var tokens = pattern(`['"“‘]([^'"”’]+)['"”’]|(?:^|[\s=(:])(/[^\s:,;'")\]]+)`)

// pathIn is the path that a message names; empty for none. A relative one is from where the program
// starts.
func (c *caseFile) pathIn(line string) string {
	speaker := "" // "/bin/sh: 1: cannot create /srv/x: Read-only file system"
	for _, m := range tokens().FindAllStringSubmatch(line, -1) {
		path := m[1]
		if path == "" {
			path = m[2]
		}
		if strings.HasPrefix(path, "/") && len(path) > 1 {
			if path = filepath.Clean(path); !strings.HasPrefix(line, path+": ") {
				return path
			}
			speaker = path
			continue
		}
		if m[1] != "" && !strings.ContainsAny(path, " (){}<>=") {
			return filepath.Join(c.set.workingDirectory, path)
		}
	}
	// "sh: 1: cannot create uploads/x: Read-only file system", "open uploads/x: read-only file
	// system"
	if m := regexp.MustCompile(`(?:open|create|mkdir|write|access|stat|unlink|touch) ([^\s:'"]+): `).FindStringSubmatch(line); m != nil {
		return filepath.Join(c.set.workingDirectory, m[1])
	}
	return speaker
}
