package nodecluster

import (
	"bytes"
	"math"
	"strconv"
)

// Lines that come with every connection, as Node writes them. Parse handles other spellings, more
// slowly.
var (
	handleAck   = []byte(`{"cmd":"NODE_HANDLE_ACK"}`)
	answeredAck = []byte(`{"cmd":"NODE_CLUSTER","ack":`)
	answeredYes = []byte(`,"accepted":true,"seq":`)
	answeredNo  = []byte(`,"accepted":false,"seq":`)
	reportToken = []byte(`{"cmd":"NODE_UNITGEN","act":"report","token":`)
	reportOpen  = []byte(`,"open":`)
	reportBusy  = []byte(`,"busy":`)
)

// parseConnection parses the lines by which a worker answers a connection and reports its end,
// without the cost of JSON. It returns false for any other line.
func parseConnection(line []byte) (Message, bool) {
	if bytes.Equal(line, handleAck) {
		return Message{Kind: HandleAck}, true
	}
	if rest, ok := bytes.CutPrefix(line, answeredAck); ok {
		return parseAnswered(rest)
	}
	if rest, ok := bytes.CutPrefix(line, reportToken); ok {
		return parseReport(rest)
	}
	return Message{}, false
}

func parseAnswered(rest []byte) (Message, bool) {
	m, ok := Message{Kind: Answered, Taken: true}, false
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

func parseReport(rest []byte) (m Message, ok bool) {
	m.Kind = Report
	if m.Token, rest, ok = cutInt(rest, nil); !ok {
		return Message{}, false
	}
	if m.Open, rest, ok = cutInt(rest, reportOpen); !ok {
		return Message{}, false
	}
	m.Busy, rest, ok = cutInt(rest, reportBusy)
	return m, ok && string(rest) == "}"
}

// cutInt takes a prefix and a number of at most 31 bits off the front.
func cutInt(b, prefix []byte) (n int, rest []byte, ok bool) {
	if rest, ok = bytes.CutPrefix(b, prefix); !ok {
		return 0, nil, false
	}
	number, rest, ok := cutNumber(rest)
	return int(number), rest, ok && number <= math.MaxInt32
}

// cutNumber cuts a JSON number off the front.
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
