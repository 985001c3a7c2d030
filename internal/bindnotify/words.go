package bindnotify

import (
	"fmt"
	"log/slog"
	"net/netip"
	"slices"
	"strings"
)

// Prefix begins the lines of a supervisor in the journal, among those of the program.
const Prefix = "lbshim: "

// Words describes a fact for the admin of app, with the command to type. It is empty for facts that
// need no attention.
func (f Fact) Words(app string) (level slog.Level, text string) {
	switch f.Kind {
	case Widened:
		return slog.LevelWarn, fmt.Sprintf("the program binds %s, but the app listens on %s; to use the program's address: unitgen %s --listen=%s",
			f.Address, f.Listener, app, f.Address)
	case Listens:
		return slog.LevelInfo, fmt.Sprintf("the program also opens %s itself, which is not an address of the app", f.Address)
	case OtherFamily, Hidden, WantsNotification:
		what, hint := f.problem(app)
		return slog.LevelWarn, what + ": " + hint
	}
	return slog.LevelDebug, ""
}

// problem says what keeps a program from serving, as a clause, and what to type about it.
func (f Fact) problem(app string) (what, hint string) {
	change := "unitgen " + app + " "
	switch f.Kind {
	case OtherFamily:
		return fmt.Sprintf("the program binds %s with IPv4, but the app's listener there is IPv6", f.Address),
			change + "--listen=" + netip.AddrPortFrom(f.Address.Addr(), f.Listener.Port()).String()
	case Hidden:
		what = "the balancer cannot see what the program binds, as "
		switch f.Reason {
		case reasonUser:
			return what + "the program has changed its user", change + "--user=USER"
		case reasonFile:
			return what + "the program's file may be executed but not read", "chmod a+r PROGRAM"
		}
		return what + "the kernel forbids to look into a program's children", "sysctl kernel.yama.ptrace_scope=0"
	case WantsNotification:
		return f.Program + " wants seccomp notification for itself, which the kernel refuses below that of the balancer", change + "--kind=listen"
	}
	return "", ""
}

// ParseWords reads a supervisor's log line about what keeps a program from serving, and returns the
// fact. A program may have written the line, so only addresses and a name that a Fact may have are
// taken from it: Problem prints nothing that a supervisor could not have caused.
func ParseWords(line string) (Fact, bool) {
	text, ok := strings.CutPrefix(line, Prefix)
	if !ok {
		return Fact{}, false
	}
	f := Fact{Kind: Hidden}
	for _, f.Reason = range []reason{reasonUser, reasonFile, reasonAncestry} {
		if what, _ := f.problem(""); strings.HasPrefix(text, what+": ") {
			return f, true
		}
	}
	if rest, ok := strings.CutPrefix(text, "the program binds "); ok {
		ask, rest, _ := strings.Cut(rest, " ")
		_, listen, _ := strings.Cut(rest, " --listen=")
		listen, _, _ = strings.Cut(listen, " ")
		asked, err := netip.ParseAddrPort(ask)
		open, err2 := netip.ParseAddrPort(listen)
		f = Fact{Kind: OtherFamily, Address: asked, Listener: netip.AddrPortFrom(netip.IPv6Unspecified(), open.Port())}
		if what, _ := f.problem(""); err == nil && err2 == nil && asked.Addr().Zone() == "" && strings.HasPrefix(text, what+": ") {
			return f, true
		}
	}
	name, _, _ := strings.Cut(text, " ")
	f = Fact{Kind: WantsNotification, Program: name}
	if what, _ := f.problem(""); f.known() && strings.HasPrefix(text, what+": ") {
		return f, true
	}
	return Fact{}, false
}

// Problem says why a program, whose supervisor has reported s, serves none of the app's addresses:
// a clause, and the command to type. Both are empty if the program's sockets show the reason.
func (s State) Problem(app string, addresses []netip.AddrPort) (what, hint string) {
	if f, ok := s.first(OtherFamily, Hidden); ok {
		return f.problem(app)
	}
	if f, ok := s.first(Serves); ok {
		for _, a := range addresses {
			if !slices.ContainsFunc(s.Facts, func(f Fact) bool { return f.Kind == Serves && f.Listener == a }) {
				return fmt.Sprintf("the program listens on %s and not on %s", f.Listener, a), fmt.Sprintf("unitgen %s --listen=%s", app, f.Listener)
			}
		}
		return "the program listens, and accepts no connection", "unitgen logs " + app
	}
	if f, ok := s.first(Answered, Widened); ok {
		return fmt.Sprintf("the program has bound %s, and does not listen", f.Address), "unitgen logs " + app
	}
	if f, ok := s.first(WantsNotification); ok {
		return f.problem(app)
	}
	return "", ""
}

// MayBindUnseen says that the program uses io_uring, as every Node.js program does, and was seen to
// bind nothing.
func (s State) MayBindUnseen() bool {
	_, uses := s.first(UsesIOUring)
	_, binds := s.first(Listens, Binds, Answered, Widened, OtherFamily, Serves)
	return uses && !binds
}

// first returns the oldest fact of one of kinds.
func (s State) first(kinds ...FactKind) (Fact, bool) {
	i := slices.IndexFunc(s.Facts, func(f Fact) bool { return slices.Contains(kinds, f.Kind) })
	if i < 0 {
		return Fact{}, false
	}
	return s.Facts[i], true
}

// String lists the facts, for logs of tests.
func (s State) String() string {
	var b strings.Builder
	for _, f := range s.Facts {
		b.WriteString(f.line())
	}
	return b.String()
}
