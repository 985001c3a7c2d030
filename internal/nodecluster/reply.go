package nodecluster

import (
	"encoding/hex"
	"encoding/json"
	"time"

	"golang.org/x/sys/unix"
)

// Reply is one line to a worker, all but its sequence number, which Channel gives it.
type Reply struct{ build func(seq uint64) any }

// envelope is what all messages of the cluster's begin with.
type envelope struct {
	Cmd string  `json:"cmd"`
	Seq uint64  `json:"seq"`
	Ack *uint64 `json:"ack,omitempty"`
	Act string  `json:"act,omitempty"`
}

// answer is the reply to Ask.
type answer struct {
	envelope
	Errno int             `json:"errno"` // 0, or negative as in libuv
	Key   string          `json:"key,omitempty"`
	Data  json.RawMessage `json:"data"` // what a TLS server cannot do without, also when it is refused
	Name  *sockname       `json:"sockname,omitempty"`
}

// Promise answers Ask under a key that is the worker's own: the connections of the address will be
// given one by one, by Channel.Hand.
func Promise(ask Message, key string, data json.RawMessage, address Address) Reply {
	return Reply{func(seq uint64) any {
		return answer{
			envelope: envelope{Cmd: "NODE_CLUSTER", Seq: seq, Ack: &ask.Seq}, Key: key, Data: data, Name: address.sockname(ask.Asked),
		}
	}}
}

// Refuse answers Ask with an error, which the program gets as event 'error' of its server.
func Refuse(ask Message, errno unix.Errno, data json.RawMessage) Reply {
	return Reply{func(seq uint64) any {
		return answer{envelope: envelope{Cmd: "NODE_CLUSTER", Seq: seq, Ack: &ask.Seq}, Errno: -int(errno), Data: data}
	}}
}

// Acknowledge answers Leaving.
func Acknowledge(m Message) Reply {
	return Reply{func(seq uint64) any {
		return envelope{Cmd: "NODE_CLUSTER", Seq: seq, Ack: &m.Seq}
	}}
}

// AckHandle answers HandleSent. Until it comes the worker keeps back all that it sends after the
// descriptor.
func AckHandle() Reply {
	return Reply{func(uint64) any {
		return struct {
			Cmd string `json:"cmd"`
		}{"NODE_HANDLE_ACK"}
	}}
}

// Disconnect makes the worker close all its servers, which closes idle connections too from Node 19
// on, and the channel when the last connection has ended.
func Disconnect() Reply {
	return Reply{func(seq uint64) any {
		return envelope{Cmd: "NODE_CLUSTER", Seq: seq, Act: "disconnect"}
	}}
}

// LetGo makes a worker that has loaded drain.cjs say "Connection: close" in every answer of HTTP/1,
// and GOAWAY to every session of HTTP/2. To others it means nothing: Node ignores messages whose
// cmd begins with NODE_ and that it does not know.
func LetGo() Reply {
	return Reply{func(seq uint64) any {
		return envelope{Cmd: "NODE_UNITGEN", Seq: seq, Act: "drain"}
	}}
}

// HoldOn takes LetGo back; sessions that were told GOAWAY close all the same.
func HoldOn() Reply {
	return Reply{func(seq uint64) any {
		return envelope{Cmd: "NODE_UNITGEN", Seq: seq, Act: "serve"}
	}}
}

// CloseWithin makes a worker close idle connections of its HTTP servers, one after another over
// that time. A connection is idle if no request is under way and nothing arrives meanwhile. The
// message works for a worker that has loaded drain.cjs, is draining, and does not handle SIGTERM.
// Others ignore it.
func CloseWithin(d time.Duration) Reply { return closeWithin(d, false) }

// CutWithin is CloseWithin that also closes connections on which something arrives, such as
// WebSockets.
func CutWithin(d time.Duration) Reply { return closeWithin(d, true) }

func closeWithin(d time.Duration, busy bool) Reply {
	return Reply{func(seq uint64) any {
		return struct {
			envelope
			Milliseconds int64 `json:"milliseconds"`
			Busy         bool  `json:"busy,omitempty"`
		}{envelope{Cmd: "NODE_UNITGEN", Seq: seq, Act: "close"}, d.Milliseconds(), busy}
	}}
}

// AskReport makes a worker that has loaded drain.cjs send a Report with that token. Others ignore
// it.
func AskReport(token int) Reply {
	return Reply{func(seq uint64) any {
		return struct {
			envelope
			Token int `json:"token"`
		}{envelope{Cmd: "NODE_UNITGEN", Seq: seq, Act: "report"}, token}
	}}
}

// UseTickets makes a worker that has loaded drain.cjs encrypt the session tickets of its TLS
// servers with keys that all workers share, as the cluster module does. Others ignore it.
func UseTickets(keys []byte) Reply {
	return Reply{func(seq uint64) any {
		return struct {
			envelope
			Keys string `json:"keys"`
		}{envelope{Cmd: "NODE_UNITGEN", Seq: seq, Act: "tickets"}, hex.EncodeToString(keys)}
	}}
}

// Shutdown is the message that PM2 sends to a program before it ends, instead of a signal
// (--shutdown-with-message).
func Shutdown() Reply {
	return Reply{func(uint64) any { return "shutdown" }}
}
