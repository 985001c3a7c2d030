package nodecluster

import (
	"bytes"
	"strconv"
)

// Lines that come with every connection, as Node writes them: what is written otherwise takes the long way of Parse.
var (
	handleAck   = []byte(`{"cmd":"NODE_HANDLE_ACK"}`)
	answeredAck = []byte(`{"cmd":"NODE_CLUSTER","ack":`)
	answeredYes = []byte(`,"accepted":true,"seq":`)
	answeredNo  = []byte(`,"accepted":false,"seq":`)
)

// parseConnection takes apart the two lines by which a worker answers a connection, without the cost of JSON; false for
// any other line.
func parseConnection(line []byte) (Message, bool) {
	if bytes.Equal(line, handleAck) {
		return Message{Kind: HandleAck}, true
	}
	rest, ok := bytes.CutPrefix(line, answeredAck)
	if !ok {
		return Message{}, false
	}
	m := Message{Kind: Answered, Taken: true}
	if m.Ack, rest, ok = cutNumber(rest); !ok {
		return Message{}, false
	}
	after, yes := bytes.CutPrefix(rest, answeredYes)
	if !yes {
		m.Taken = false
		if after, ok = bytes.CutPrefix(rest, answeredNo); !ok {
			return Message{}, false
		}
	}
	_, rest, ok = cutNumber(after)
	return m, ok && string(rest) == "}"
}

// cutNumber takes a number as JSON has it off the front.
func cutNumber(b []byte) (n uint64, rest []byte, ok bool) {
	i := 0
	for i < len(b) && '0' <= b[i] && b[i] <= '9' {
		i++
	}
	if i == 0 || i > 1 && b[0] == '0' {
		return 0, nil, false
	}
	n, err := strconv.ParseUint(string(b[:i]), 10, 64)
	return n, b[i:], err == nil
}
