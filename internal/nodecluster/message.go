// Package nodecluster speaks with Node.js programs on the channel between a Node process and the
// process that started it (child_process.fork): a unix stream socket with one JSON value a line,
// and a descriptor with the line that owns it.
//
// On every path the channel carries messages of the program. Two of them matter here, which
// programs made for PM2 send: "ready", and objects whose type is "process:msg", which are for other
// instances. A Payload is a message to programs. The channel also carries the messages to and from
// drain.cjs.
//
// On the handoff path the package is also the primary's side of the protocol by which Node's
// cluster module asks another process for its listening sockets. Unmodified programs can so share
// sockets that no kernel spreads, such as a unix socket: http.Server.listen("/run/x") becomes a
// message, and the answer promises accepted connections, one by one (act newconn). UDP is not
// supported. The protocol is internal to Node, and the same on the wire from Node 12 to 24. Parse
// reads a line, Worker decides, Channel moves lines and connections.
//
// To hand over a connection costs one sendmsg(2) of some 110 bytes with its descriptor, and read(2)
// of some 150 bytes in three lines, which several connections share when they come in quick
// succession. A channel that is read with Hear is one descriptor, with Read two.
//
// Source: lib/internal/cluster/child.js, lib/internal/child_process.js and lib/net.js of Node 12.22
// to 24.
package nodecluster

import (
	"bytes"
	"encoding/json"
	"fmt"
	"math"
	"strings"
)

// Kind is what a line from a worker is.
type Kind int

// The kinds of lines. User is any other message of the program, sent by process.send(), and needs
// no answer. Unknown is an unknown message of the cluster module, which needs no answer either:
// Node ignores unknown messages too.
const (
	User Kind = iota
	Unknown
	Online     // the worker has booted, the program has not run yet
	Ask        // listen() was called and waits for a reply
	Listening  // a server of the program listens: Asked says which
	Closed     // a server of the program has closed: Key says which
	Leaving    // the program calls worker.disconnect(), and waits for a reply
	HandleSent // a descriptor of the program's comes with it and waits for AckHandle
	HandleAck  // the descriptor that was sent has arrived
	HandleLost // the descriptor that was sent could not be received, such as by EMFILE: the reply went with it
	Answered   // a connection that Channel.Hand gave was taken or not: Ack and Taken say
	Report     // what drain.cjs tells of the process: Token, Open, Busy
	Ready      // the program itself has sent "ready"
	Mail       // the program itself has sent a message for others: To says whom, Text what
)

// Message is one line from a worker.
type Message struct {
	Kind  Kind
	Seq   uint64 // of Ask and Leaving: what the reply must name
	Asked Asked  // of Ask and Listening
	Key   string // of Closed
	// Data is what servers of one address have in common, of Ask: session ticket keys of TLS, else
	// nil. It is JSON.
	Data json.RawMessage
	// Ack, of Answered, is the number that Hand returned. Taken says that the program has the
	// connection; else it must go elsewhere.
	Ack   uint64
	Taken bool
	// Of Report. Token is that of the latest AskReport, or zero before the first. Open is the
	// number of connections that were handed over and have not ended; Busy is how many of them are
	// busy. On a channel without handed connections Busy counts requests. Stops means that the
	// program handles SIGTERM.
	Token, Open, Busy int
	Stops             bool

	To   int             // of Mail: the instance; 0 for all but the sender's
	Text json.RawMessage // of Mail: the whole line
}

// Asked is a call of listen() as the cluster module describes it.
type Asked struct {
	Address string // numeric; empty for all; a path if Family is Unix
	Port    int    // 0 for any; with Listening the real one
	Family  Family
	FD      int // of listen({fd}); -1 otherwise
	Index   int // counts calls with otherwise the same arguments in one process
}

// Family is the kind of socket that a server wants.
type Family int

// The families.
const (
	TCP Family = iota
	UDP
	Unix
)

// Limits of what a worker may say. Node's own messages have some 300 bytes, most of them ticket
// keys.
const (
	maxText = 1024 // of an address or a key: a path has at most 107 bytes
	maxData = 4096 // of Data
)

// Parse takes a line from a worker apart; line has no newline. The Message shares no memory with
// line, which is most often of a buffer that the next read overwrites. Parse fails for what Node
// never sends: no JSON, or a message of the cluster's that is wrong in itself.
func Parse(line []byte) (Message, error) {
	if m, ok := parseConnection(line); ok {
		return m, nil
	}
	if !json.Valid(line) {
		return Message{}, fmt.Errorf("parse message of worker: %.40q is not JSON", line)
	}
	// A map, as the names of fields must match exactly: {"CMD": …} is a message of the program's.
	var fields map[string]json.RawMessage
	if err := json.Unmarshal(line, &fields); err != nil {
		if string(line) == `"ready"` {
			return Message{Kind: Ready}, nil
		}
		return Message{}, nil // another string, a number, a list: the program's
	}
	f := object{fields: fields}
	switch cmd := internal(fields["cmd"]); cmd {
	case "":
		return f.mail(line)
	case "NODE_CLUSTER":
		return f.cluster()
	case "NODE_UNITGEN":
		return f.report()
	case "NODE_HANDLE":
		return Message{Kind: HandleSent}, nil
	case "NODE_HANDLE_ACK":
		return Message{Kind: HandleAck}, nil
	case "NODE_HANDLE_NACK":
		return Message{Kind: HandleLost}, nil
	}
	return Message{Kind: Unknown}, nil
}

// internal returns the value of field cmd if that makes a message Node's own, as isInternal in
// child_process.js does.
func internal(raw json.RawMessage) string {
	const prefix = "NODE_"
	var cmd string
	if json.Unmarshal(raw, &cmd) != nil || len(cmd) <= len(prefix) || !strings.HasPrefix(cmd, prefix) {
		return ""
	}
	return cmd
}

// object reads fields and keeps the first error.
type object struct {
	fields map[string]json.RawMessage
	err    error
}

func (o *object) cluster() (Message, error) {
	var m Message
	switch o.text("act", false) {
	case "online":
		m.Kind = Online
	case "queryServer":
		m.Kind, m.Seq, m.Asked, m.Data = Ask, o.seq(), o.asked(), o.data()
	case "listening":
		m.Kind, m.Asked = Listening, o.asked()
	case "close":
		m.Kind, m.Key = Closed, o.text("key", true)
	case "exitedAfterDisconnect":
		m.Kind, m.Seq = Leaving, o.seq()
	case "":
		m = o.answered()
	default:
		m.Kind = Unknown
	}
	if o.err != nil {
		return Message{}, fmt.Errorf("parse message of worker: %w", o.err)
	}
	return m, nil
}

// answered reads a reply. The only messages to a worker that it replies to are connections.
func (o *object) answered() Message {
	taken := string(o.fields["accepted"])
	if _, ok := o.fields["ack"]; !ok || taken != "true" && taken != "false" {
		return Message{Kind: Unknown}
	}
	return Message{Kind: Answered, Ack: o.count("ack"), Taken: taken == "true"}
}

func (o *object) report() (Message, error) {
	if o.text("act", false) != "report" {
		return Message{Kind: Unknown}, nil
	}
	m := Message{Kind: Report, Token: o.number("token", 0, 0, math.MaxInt32),
		Open: o.number("open", 0, 0, math.MaxInt32), Busy: o.number("busy", 0, 0, math.MaxInt32),
		Stops: string(o.fields["stops"]) == "true"}
	if o.err != nil {
		return Message{}, fmt.Errorf("parse report of worker: %w", o.err)
	}
	return m, nil
}

// mail reads an object of the program. PM2 has no field "to", because its programs tell PM2 the
// receiver.
func (o *object) mail(line []byte) (Message, error) {
	if string(o.fields["type"]) != `"process:msg"` {
		return Message{}, nil
	}
	m := Message{Kind: Mail, To: o.number("to", 0, 1, math.MaxInt32), Text: bytes.Clone(line)}
	if o.err != nil {
		return Message{}, fmt.Errorf("parse process:msg of program: %w", o.err)
	}
	return m, nil
}

func (o *object) asked() Asked {
	a := Asked{Address: o.text("address", false), FD: -1, Index: o.number("index", 0, 0, math.MaxInt32)}
	if raw, ok := o.fields["fd"]; ok && string(raw) != "null" {
		a.FD = o.number("fd", -1, -1, math.MaxInt32)
	}
	switch string(o.fields["addressType"]) {
	case `"udp4"`, `"udp6"`:
		a.Family = UDP
	case "-1":
		a.Family = Unix
		return a
	case "4", "6", "null", "":
	default:
		o.fail("addressType")
	}
	// -1 goes with listen({fd}) in some versions, null in others.
	a.Port = max(0, o.number("port", 0, -1, math.MaxUint16))
	return a
}

func (o *object) data() json.RawMessage {
	raw, ok := o.fields["data"]
	if !ok || string(raw) == "null" {
		return nil
	}
	if len(raw) > maxData {
		o.fail("data")
	}
	return raw
}

func (o *object) text(name string, required bool) string {
	raw, ok := o.fields[name]
	if !ok || string(raw) == "null" {
		if required {
			o.fail(name)
		}
		return ""
	}
	var s string
	if json.Unmarshal(raw, &s) != nil || len(s) > maxText || strings.ContainsRune(s, 0) {
		o.fail(name)
		return ""
	}
	return s
}

func (o *object) number(name string, absent, least, most int) int {
	raw, ok := o.fields[name]
	if !ok || string(raw) == "null" {
		return absent
	}
	var n int
	if json.Unmarshal(raw, &n) != nil || n < least || n > most {
		o.fail(name)
		return absent
	}
	return n
}

// seq is required where a reply must name it.
func (o *object) seq() uint64 { return o.count("seq") }

func (o *object) count(name string) uint64 {
	var n uint64
	if json.Unmarshal(o.fields[name], &n) != nil {
		o.fail(name)
	}
	return n
}

func (o *object) fail(field string) {
	if o.err == nil {
		o.err = fmt.Errorf("field %s is %.40q", field, o.fields[field])
	}
}
