package activation

import (
	"errors"
	"fmt"

	"github.com/unitgen/unitgen/internal/listenfds"
)

// ErrNotPassed says that the service manager passed no descriptor of the kind or name asked for. It
// is the error to branch on in a program that can also open its sockets itself. The error that
// wraps it says why: no LISTEN_PID, a LISTEN_PID of another process, or the names that were passed
// instead.
var ErrNotPassed = listenfds.ErrNotPassed

// Inherit takes over the descriptors that the service manager passed to this process: the sockets
// of its socket units in the order of the units' Listen…= lines, then the stored ones (FDSTORE=1)
// in any order. Tell them apart by name, never by position.
//
// The caller owns the result and closes it, or takes every descriptor out of it. All descriptors
// are close-on-exec afterwards. Nothing else about them is changed: O_NONBLOCK in particular
// belongs to everybody who shares the socket.
//
// Inherit removes LISTEN_PID, LISTEN_PIDFDID, LISTEN_FDS and LISTEN_FDNAMES from the environment,
// whether or not it succeeds, so the first call gets the descriptors and later ones get none. Call
// it once, at the start of main, before other goroutines run.
//
// A process that was passed nothing gets an empty result and no error; asking that for a listener
// fails with ErrNotPassed. An environment that contradicts itself or the open descriptors is an
// error, and then every descriptor stays open and unowned: exit. See sd_listen_fds(3).
func Inherit() (*Descriptors, error) {
	return Env{}.Inherit()
}

// Inherit is the function Inherit with the environment e.
func (e Env) Inherit() (*Descriptors, error) {
	fds, err := listenfds.Env{Lookup: e.lookup, Unset: e.unset, PID: e.pid(), FirstFD: e.firstFD()}.Inherit()
	if errors.Is(err, ErrNotPassed) {
		return &Descriptors{absent: err}, nil
	}
	if err != nil {
		return nil, err
	}
	list := make([]*Descriptor, 0, len(fds))
	for _, fd := range fds {
		d := &Descriptor{name: fd.Name, fd: fd.Number}
		if err := d.classify(); err != nil {
			return nil, fmt.Errorf("inherit descriptor %d of LISTEN_FDS=%d: %w", fd.Number, len(fds), err)
		}
		list = append(list, d)
	}
	return &Descriptors{list: list}, nil
}
