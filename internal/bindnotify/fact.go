package bindnotify

import (
	"net/netip"
	"strings"
)

// maxFacts bounds what a supervisor remembers and says of each kind: a program may do any number of
// things. A server binds a handful of addresses.
const maxFacts = 16

// Fact is something that a program has done for the first time.
type Fact struct {
	Kind     FactKind
	Protocol string         // "tcp", "udp" or empty
	Address  netip.AddrPort // what the program asked for
	IPv6     bool           // its socket is one of IPv6
	Listener netip.AddrPort // the app's, if there is one
	Reason   reason         // of Hidden
	Program  string         // the name of its process, which it may choose
}

// FactKind is the kind of an event.
type FactKind string

const (
	Answered          FactKind = "answered"     // bound an address of the app, and has its listener
	Widened           FactKind = "widened"      // the same, but the listener is open to more than it asked for
	OtherFamily       FactKind = "other-family" // bound an address of the app by IPv4, whose listener is IPv6
	Binds             FactKind = "binds"        // bound another address, by itself
	Serves            FactKind = "serves"       // called listen on a listener of the app
	Listens           FactKind = "listens"      // called listen on a socket of its own
	Hidden            FactKind = "hidden"       // called bind or listen and cannot be looked into
	WantsNotification FactKind = "notification" // wants to be a supervisor itself, which the kernel refuses below another one
	UsesIOUring       FactKind = "io-uring"     // may bind by it, unseen
)

// reason is why a process cannot be looked into.
type reason string

const (
	reasonUser     reason = "user"     // it is another user's
	reasonFile     reason = "file"     // its program may not be read
	reasonAncestry reason = "ancestry" // the kernel allows it for no process but its children (Yama), or a filter forbids it
)

// facts are those known.
type facts struct{ known []Fact }

// add returns false for a known fact and for one too many.
func (f *facts) add(fact Fact) bool {
	kin := 0
	for _, k := range f.known {
		if k == fact {
			return false
		}
		if k.Kind == fact.Kind {
			kin++
		}
	}
	if kin >= maxFacts {
		return false
	}
	f.known = append(f.known, fact)
	return true
}

// bound are the latest addresses that sockets of the program's own were bound to, oldest first.
type bound struct {
	sockets [maxFacts]struct {
		id      socketID
		address netip.AddrPort
	}
}

func (b *bound) put(id socketID, address netip.AddrPort) {
	copy(b.sockets[:], b.sockets[1:])
	last := &b.sockets[len(b.sockets)-1]
	last.id, last.address = id, address
}

func (b *bound) address(id socketID) (netip.AddrPort, bool) {
	for _, s := range b.sockets {
		if s.id == id && s.address.IsValid() {
			return s.address, true
		}
	}
	return netip.AddrPort{}, false
}

// line is one fact in the supervisor's state: words with blanks between them, "-" for none, and a
// line break.
func (f Fact) line() string {
	family := "4"
	if f.IPv6 {
		family = "6"
	}
	words := []string{string(f.Kind), f.Protocol, family, addressWord(f.Address), addressWord(f.Listener), string(f.Reason), f.Program}
	for i, w := range words {
		if w == "" {
			words[i] = "-"
		}
	}
	return strings.Join(words, " ") + "\n"
}

func addressWord(a netip.AddrPort) string {
	if !a.IsValid() {
		return ""
	}
	return a.String()
}

// parseFact reads a line without its line break. Whoever wrote it may be a program that wants to
// look like another one: ok is false for all that line does not write.
func parseFact(line string) (f Fact, ok bool) {
	words := strings.Split(line, " ")
	if len(words) != 7 {
		return Fact{}, false
	}
	for i, w := range words {
		if w == "-" {
			words[i] = ""
		}
	}
	f = Fact{Kind: FactKind(words[0]), Protocol: words[1], IPv6: words[2] == "6", Reason: reason(words[5]), Program: words[6]}
	var err error
	for i, into := range map[int]*netip.AddrPort{3: &f.Address, 4: &f.Listener} {
		if words[i] == "" {
			continue
		}
		if *into, err = netip.ParseAddrPort(words[i]); err != nil || into.Addr().Zone() != "" {
			return Fact{}, false
		}
	}
	return f, f.known() && f.line() == line+"\n"
}

func (f Fact) known() bool {
	switch f.Kind {
	case Answered, Widened, OtherFamily, Binds, Serves, Listens, Hidden, WantsNotification, UsesIOUring:
	default:
		return false
	}
	switch f.Protocol {
	case "", "tcp", "udp":
	default:
		return false
	}
	switch f.Reason {
	case "", reasonUser, reasonFile, reasonAncestry:
	default:
		return false
	}
	for _, c := range []byte(f.Program) {
		if c <= ' ' || c >= 0x7f {
			return false
		}
	}
	return len(f.Program) <= 16
}
