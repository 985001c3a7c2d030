package path

import (
	"net/netip"

	"github.com/unitgen/unitgen/internal/handoff/receiver"
)

// Receiving is a path that gives connections to programs which cannot accept by themselves, by a
// protocol of theirs.
type Receiving interface {
	// Addresses are the public ones.
	Addresses() []Address
	// Receive gives an instance its connections by r, in place of the Receiver that it had. A
	// Receiver that is not fresh was given some by an earlier shim: it gets none until it has
	// answered Ask.
	Receive(instance int, r receiver.Receiver, fresh bool) (Delivery, error)
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
