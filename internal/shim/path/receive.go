package path

import "net/netip"

// Receiving is a path that gives connections to programs which cannot accept by themselves, by a
// protocol of theirs.
type Receiving interface {
	// Addresses are the public ones.
	Addresses() []Address
	// Receive gives an instance its connections by r, in place of the Receiver that it had. A
	// Receiver that is not fresh was given some by an earlier shim: it gets none until it has
	// answered Ask.
	Receive(instance int, r Receiver, fresh bool) (Delivery, error)
}

// Address is a public address: one of IP, or the path of a unix socket.
type Address struct {
	TCP  netip.AddrPort
	Unix string
}

// Delivery is what Receive has begun. It ends by itself when the instance gets another Receiver.
type Delivery interface {
	// Serving says whether the program takes connections now. It answers what it was given in any
	// case.
	Serving(serving bool)
	// Hear has the path call the Receiver's Hear again, which had no room for what it read.
	Hear()
	// End takes back what the program has not answered.
	End()
}

// Receiver is the program of an instance. Its methods are called with the state of the path locked:
// they neither block nor call the path.
type Receiver interface {
	// Give sends a connection of a listener. The descriptor stays the path's until a Said names the
	// number. It is false if the program has no room now.
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
