package explain

import (
	"context"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/unitgen/unitgen/internal/systemd"
)

// runningLines is how many entries are read of an app whose instances run, latest first. What was
// refused and is not among them is not found.
const runningLines = 3000

// Running says what is refused to instances that run: what the sandbox refuses, and further ports
// that others have. Each different reason comes once, at most MaxReasons.
//
// It goes by what the instances have said since they started, an hour ago at most, and by what the
// kernel has reported of them (auditd(8)). A line about a call that failed is nothing by itself, as
// programs try paths one after another. So the host must show the reason, or the line must name a
// call that the sandbox refuses.
//
// It costs two runs of journalctl(1) for all instances.
func (q Question) Running(ctx context.Context, numbers []int) ([]Failure, error) {
	up := make(map[string]systemd.UnitState)
	var units []string
	for _, i := range numbers {
		u, err := q.Conn.Unit(ctx, q.App.Instance(i))
		if err != nil {
			return nil, err
		}
		if u.Up() {
			up[u.Name] = u
			units = append(units, u.Name)
		}
	}
	if len(units) == 0 {
		return nil, nil
	}
	set, err := q.readSettings(ctx, units[0])
	if err != nil {
		return nil, err
	}
	said, err := q.readAll(ctx, units)
	if err != nil {
		return nil, nil // of a user who may not read the journal
	}
	var all failures
	for _, unit := range units {
		c := &caseFile{Question: q, state: up[unit], set: set}
		if u, ok := q.App.ParseUnit(unit); ok {
			c.number = u.Instance
		}
		past := group(said[unit], unit, !q.UserUnits && !set.isRoot())
		if r := c.killedBefore(ctx, past); r.What != "" {
			all.add(r, unit)
		}
		for _, in := range past {
			if in.id != c.state.InvocationID {
				continue
			}
			for _, line := range in.said {
				if r := c.refusedNow(ctx, line); r.What != "" {
					r.Said = line
					all.add(r, unit)
				}
			}
		}
		if r := c.audited(ctx); r.What != "" {
			all.add(r, unit)
		}
	}
	return all, nil
}

// readAll reads the entries of all units, oldest first, by unit.
func (q Question) readAll(ctx context.Context, units []string) (map[string][]entry, error) {
	by, about := "_SYSTEMD_UNIT", "UNIT"
	root := "_UID=0"
	var match []string
	if q.UserUnits {
		by, about, root = "_SYSTEMD_USER_UNIT", "USER_UNIT", "_UID="+strconv.Itoa(os.Getuid())
		match = append(match, root)
	}
	for _, unit := range units {
		match = append(match, by+"="+unit)
	}
	match = append(match, "+", root)
	for _, unit := range units {
		match = append(match, about+"="+unit)
	}
	entries, err := readEntries(ctx, time.Now().Add(-recent), runningLines, match...)
	if err != nil {
		return nil, fmt.Errorf("read journal of %s: %w", q.App, err)
	}
	found := make(map[string][]entry)
	for _, e := range entries {
		unit := e.text(about)
		if unit == "" {
			unit = e.text(by)
		}
		found[unit] = append(found[unit], e)
	}
	return found, nil
}

// killedBefore explains an instance that PID 1 has restarted because the sandbox had killed the run
// before this one.
func (c *caseFile) killedBefore(_ context.Context, past []*invocation) Reason {
	at := slices.IndexFunc(past, func(in *invocation) bool { return in.id != c.state.InvocationID && in.ended() })
	if at < 0 || c.state.NRestarts == 0 || !isBadCall(past[at].exitStatus) {
		return Reason{}
	}
	return c.badCall("killed its last run")
}

// isBadCall reports whether a status that PID 1 logs is SIGSYS.
func isBadCall(status string) bool { return status == "SYS" || status == "31" }

func (c *caseFile) badCall(what string) Reason {
	return Reason{What: "the sandbox " + what + " at a system call that it refuses (SystemCallFilter=)",
		Hint: c.options("-p SystemCallErrorNumber=EPERM")}
}

// What programs that run say of calls that were refused.
var (
	saysInUse     = pattern(`(?i)EADDRINUSE|address( is)? already in use|address in use|connection in use`)
	saysReadOnly  = pattern(`EROFS|(?i)read-only file ?system`)
	saysFamily    = pattern(`EAFNOSUPPORT|(?i)address family not supported`)
	saysExec      = pattern(`(?i)executable (memory|stack)|memory page as executable|mprotect|PROT_EXEC`)
	saysRefused   = pattern(`EPERM|EACCES|(?i)operation not permitted|permission denied`)
	saysPermitted = pattern(`EPERM|(?i)operation not permitted`)
	saysDenied    = pattern(`EACCES|(?i)permission denied`)
	saysNotFound  = pattern(`ENOENT|(?i)no such file or directory`)
	saysBadCall   = pattern(`\bSIGSYS\b|(?i)\bbad system call\b`)
)

// refusedNow explains one line of a program that runs; the zero Reason for most.
func (c *caseFile) refusedNow(ctx context.Context, line string) Reason {
	m := message{line, line}
	switch {
	case saysBadCall().MatchString(line):
		return c.badCall("kills a process of the program")
	case saysInUse().MatchString(line):
		return c.furtherPort(ctx, line)
	case saysReadOnly().MatchString(line):
		return c.readOnly(ctx, m)
	case saysFamily().MatchString(line):
		switch familyName().FindString(line) {
		case "", "AF_INET", "AF_INET6", "AF_UNIX", "AF_NETLINK":
			return Reason{} // the host's doing: the sandbox has these
		}
		return c.family(ctx, m)
	case saysExec().MatchString(line) && saysRefused().MatchString(line):
		return c.executableMemory(ctx, m)
	case saysPermitted().MatchString(line):
		return c.notPermitted(ctx, m)
	case saysDenied().MatchString(line):
		if r := c.permission(ctx, m); r.Hint != "" {
			return r
		}
	case saysNotFound().MatchString(line):
		return c.hidden(c.pathIn(line))
	}
	return Reason{}
}

// furtherPort explains EADDRINUSE of a port that is not the app's. If the program has the port by
// now, it has tried again.
func (c *caseFile) furtherPort(ctx context.Context, line string) Reason {
	port := portIn(line)
	if port == 0 || c.isOwn(port) {
		return Reason{}
	}
	who := c.Holder(ctx, port)
	if who == "" || strings.Contains(who, c.state.Name) {
		return Reason{}
	}
	return Reason{What: fmt.Sprintf("the program opens port %d, which is in use by %s", port, who), Hint: fmt.Sprintf("ss -ltnp 'sport = :%d'", port)}
}

// Fields of the kernel's message about a call that seccomp(2) refused (audit_seccomp() in
// kernel/auditsc.c).
var (
	auditCall    = pattern(`\bsyscall=(\d+)`)
	auditSignal  = pattern(`\bsig=(\d+)`)
	auditProgram = pattern(`\bexe="([^"]*)"`)
)

// auditSeccomp is AUDIT_SECCOMP (linux/audit.h).
const auditSeccomp = "_AUDIT_TYPE=1326"

// audited explains what the kernel has reported of the instance's user since the instance started.
func (c *caseFile) audited(ctx context.Context) Reason {
	process := "/proc/" + strconv.Itoa(c.state.MainPID)
	uid, ok := uidOf(process)
	if !ok || c.set.isRoot() || c.UserUnits {
		return Reason{}
	}
	entries, err := readEntries(ctx, time.UnixMicro(c.state.InactiveExit), journalLines, auditSeccomp, "_UID="+uid)
	if err != nil {
		return Reason{}
	}
	own, _ := os.Readlink(process + "/exe")
	for _, e := range entries {
		if r := c.auditReason(e.text("MESSAGE"), own); r.What != "" {
			return r
		}
	}
	return Reason{}
}

// auditReason explains one message of the kernel about a process of the instance's user. Other
// services may have the same user, unless PID 1 made the user for this app: then only the program's
// own file counts, which is own.
func (c *caseFile) auditReason(text, own string) Reason {
	call := auditCall().FindStringSubmatch(text)
	if call == nil {
		return Reason{}
	}
	name := own
	if m := auditProgram().FindStringSubmatch(text); m != nil {
		name = m[1]
	}
	if !c.set.dynamic && name != own {
		return Reason{}
	}
	r := c.badCall("refuses a call to " + printable(name))
	r.Hint = c.options("-p SystemCallFilter=@privileged")
	if m := auditSignal().FindStringSubmatch(text); m != nil && m[1] != "0" {
		r = c.badCall("killed " + printable(name))
	}
	r.Said = "system call " + call[1]
	return r
}

// uidOf is the user of a process, as a number.
func uidOf(process string) (uid string, ok bool) {
	text, err := os.ReadFile(process + "/status")
	if err != nil {
		return "", false
	}
	_, rest, found := strings.Cut(string(text), "\nUid:")
	fields := strings.Fields(rest)
	if !found || len(fields) == 0 {
		return "", false
	}
	return fields[0], true
}
