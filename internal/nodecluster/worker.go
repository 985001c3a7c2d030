package nodecluster

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"slices"

	"golang.org/x/sys/unix"
)

// Worker is the primary's state of one Node process: the addresses that it has asked for and those
// that it serves. It is plain data that can be stored as JSON, so that a new primary can take over.
// The zero value is a process that has asked for nothing. It is not safe for concurrent use.
type Worker struct {
	Servers map[string]Server `json:"servers,omitempty"` // by key
	Left    bool              `json:"left,omitempty"`    // the program has called worker.disconnect()
}

// Server is one server of a worker.
type Server struct {
	Asked     Asked   `json:"asked"`
	Address   Address `json:"address"` // the app's address whose listener it has
	Listening bool    `json:"listening"`
}

// Refusal says why a worker gets no listener. Its text is for the log; the program sees Errno.
type Refusal struct {
	Errno  unix.Errno
	Reason string
}

func (r *Refusal) Error() string { return r.Reason }

// MaxServers bounds the servers of one worker at a time: an app has few addresses, and each is
// given once.
const MaxServers = 64

// Give decides which of the app's addresses a call of listen() gets, and records it under the key
// returned. The error is a *Refusal.
//
// The ports must match, as Node compares the real port of the listener with the requested port
// (checkBindError in lib/net.js). Port 0 gets the first free address, and listen({fd: 3}) the first
// in the order of the app, as with sd_listen_fds(3). The requested address only breaks ties,
// because the app's settings decide which addresses are open. Paths of unix sockets must match too.
// A programPort other than zero stands for each address of the app, including a unix socket, which
// can only be promised.
func (w *Worker) Give(a Asked, app []Address, programPort int) (key string, address Address, err error) {
	switch {
	case a.Family == UDP:
		return "", address, &Refusal{unix.ENOTSUP, "it wants a UDP socket, which instances cannot share here; " +
			"bind({port, exclusive: true}) lets one instance open it by itself"}
	case len(w.Servers) >= MaxServers:
		return "", address, &Refusal{unix.EMFILE, fmt.Sprintf("it has %d servers already", len(w.Servers))}
	}
	fit := w.fit(a, app, programPort)
	if len(fit) == 0 {
		return "", address, refuse(a, app)
	}
	free := slices.DeleteFunc(fit, w.given)
	if len(free) == 0 {
		return "", address, &Refusal{unix.EADDRINUSE, fmt.Sprintf("it listens on port %d a second time", a.Port)}
	}
	key = a.key()
	if _, dup := w.Servers[key]; dup {
		return "", address, &Refusal{unix.EADDRINUSE, fmt.Sprintf("it asked for %s twice", key)}
	}
	if w.Servers == nil {
		w.Servers = make(map[string]Server)
	}
	w.Servers[key] = Server{Asked: a, Address: free[0]}
	return key, free[0], nil
}

// fit lists the addresses that a call of listen() may get, the best first.
func (w *Worker) fit(a Asked, app []Address, programPort int) []Address {
	const firstFD = 3 // SD_LISTEN_FDS_START
	if a.FD >= 0 {
		if i := a.FD - firstFD; i >= 0 && i < len(app) {
			return []Address{app[i]}
		}
		return nil
	}
	fit := slices.DeleteFunc(slices.Clone(app), func(have Address) bool {
		switch {
		case a.Family == Unix:
			return have.Path != a.Address
		case programPort != 0 && a.Port == programPort:
			return false
		case have.IsUnix():
			return true
		}
		return a.Port != 0 && int(have.TCP.Port()) != a.Port
	})
	wanted, _ := netip.ParseAddr(a.Address)
	rank := func(have Address) int {
		switch {
		case wanted.IsValid() && have.TCP.Addr().Unmap() == wanted.Unmap():
			return 0
		case have.TCP.Addr().IsUnspecified():
			return 1
		}
		return 2
	}
	slices.SortStableFunc(fit, func(a, b Address) int { return rank(a) - rank(b) })
	return fit
}

func refuse(a Asked, app []Address) *Refusal {
	switch {
	case a.FD >= 0:
		return &Refusal{unix.EBADF, fmt.Sprintf("it listens on descriptor %d, and the app's addresses have 3 to %d", a.FD, 2+len(app))}
	case a.Family == Unix:
		return &Refusal{unix.ENOTSUP, fmt.Sprintf("it wants unix socket %q, which the app does not have: give --listen=%[1]s, "+
			"or listen({path, exclusive: true}) lets one instance open it by itself", a.Address)}
	}
	return &Refusal{unix.ENOTSUP, fmt.Sprintf("it listens on port %d, which the app does not have: give --listen=%[1]d, "+
		"or --program-port=%[1]d if it means the app's address, or let it listen on $PORT", a.Port)}
}

func (w *Worker) given(address Address) bool {
	for _, s := range w.Servers {
		if s.Address == address {
			return true
		}
	}
	return false
}

// Listens notes that a server listens and returns its address; false if it is none that Give has
// given: a program may open sockets by itself.
func (w *Worker) Listens(a Asked) (address Address, ok bool) {
	key := a.key()
	if _, known := w.Servers[key]; !known {
		// The message has the real port where any was asked for.
		for k, s := range w.Servers {
			if asked := s.Asked; asked.Port == 0 && s.Address.TCP.Port() == uint16(a.Port) {
				asked.Port = a.Port
				if asked == a || asked.FD >= 0 && asked.FD == a.FD {
					key = k
				}
			}
		}
	}
	s, known := w.Servers[key]
	if !known {
		return Address{}, false
	}
	s.Listening = true
	w.Servers[key] = s
	return s.Address, true
}

// Close notes that the server of that key has closed and returns its address; false if there is
// none.
func (w *Worker) Close(key string) (address Address, ok bool) {
	s, ok := w.Servers[key]
	delete(w.Servers, key)
	return s.Address, ok
}

// Key returns the key of the server at an address; empty if none listens there.
func (w *Worker) Key(address Address) string {
	for key, s := range w.Servers {
		if s.Address == address && s.Listening {
			return key
		}
	}
	return ""
}

// Missing lists the addresses of the app that the worker does not serve, in the app's order; none
// if it serves all.
func (w *Worker) Missing(app []Address) []Address {
	var missing []Address
	for _, address := range app {
		if w.Key(address) == "" {
			missing = append(missing, address)
		}
	}
	return missing
}

// key names a server; it is unique among those that a process has at a time, as Index is.
func (a Asked) key() string {
	return fmt.Sprintf("%s:%d:%d:%d:%d", a.Address, a.Port, a.Family, a.FD, a.Index)
}

// Tickets are the session ticket keys of an app's TLS servers, by address. All workers use the keys
// of the first worker, so that a client can resume its session with any worker.
type Tickets map[Address]json.RawMessage

// Share returns the data that a worker must use at address, after it has sent data: data itself if
// it is the first worker.
func (t Tickets) Share(address Address, data json.RawMessage) json.RawMessage {
	if data == nil {
		return nil
	}
	if _, ok := t[address]; !ok {
		t[address] = slices.Clone(data)
	}
	return t[address]
}
