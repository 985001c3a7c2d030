// Package receiver says what an instance is that gets its connections by a protocol of its
// program's, because that program cannot accept by itself. Package channel speaks such protocols,
// and a handoff.Dispatcher gives the connections. Neither imports the other.
package receiver

// Receiver is the program of such an instance. Its methods are called with the state of the
// dispatcher locked: they neither block nor call it.
type Receiver interface {
	// Give sends a connection of a listener. The descriptor stays the dispatcher's until a Said
	// names the number. It is false if the program has no room now.
	Give(listener, fd int) (number uint64, ok bool)
	// Ask has the program tell what it has, in a report with the same token.
	Ask(token int)
	// Hear reads what has come from the program and appends what it says. More says that Hear has
	// not read all that it could.
	Hear(said []Said) (all []Said, more bool)
	// Descriptor calls f with the descriptor on which the program speaks, which is borrowed.
	Descriptor(f func(fd int) error) error
}

// Said is a message of a Receiver's program. It is about one connection, that the program has taken
// it or that another instance must; or it reports how many connections are open, and how many of
// them in the middle of something.
type Said struct {
	Number uint64
	Taken  bool

	Report            bool
	Token, Open, Busy int
}
