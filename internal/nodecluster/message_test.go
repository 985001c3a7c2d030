package nodecluster

import (
	"reflect"
	"strings"
	"testing"
)

// Lines as Node 12 to 24 send them.
const (
	online    = `{"cmd":"NODE_CLUSTER","act":"online","seq":0}`
	ask       = `{"cmd":"NODE_CLUSTER","act":"queryServer","index":0,"data":null,"address":null,"port":3000,"addressType":4,"backlog":0,"seq":1}`
	ask22     = `{"cmd":"NODE_CLUSTER","act":"queryServer","index":1,"data":null,"address":"127.0.0.1","port":0,"addressType":4,"flags":0,"seq":2}`
	askTLS    = `{"cmd":"NODE_CLUSTER","act":"queryServer","index":0,"data":{"ticketKeys":"00ff"},"address":"::","port":443,"addressType":6,"seq":3}`
	askUDP    = `{"cmd":"NODE_CLUSTER","act":"queryServer","index":0,"data":null,"address":null,"port":53,"addressType":"udp4","seq":4}`
	askUnix   = `{"cmd":"NODE_CLUSTER","act":"queryServer","index":0,"data":null,"address":"/run/x","port":-1,"addressType":-1,"readableAll":false,"seq":5}`
	askFD     = `{"cmd":"NODE_CLUSTER","act":"queryServer","index":0,"data":null,"address":null,"port":null,"addressType":null,"fd":3,"seq":6}`
	listening = `{"cmd":"NODE_CLUSTER","act":"listening","index":0,"data":null,"address":null,"port":3000,"addressType":4,"backlog":0,"seq":2}`
	closing   = `{"cmd":"NODE_CLUSTER","act":"close","key":":3000:0:-1:0","seq":3}`
	leaving   = `{"cmd":"NODE_CLUSTER","act":"exitedAfterDisconnect","seq":9}`
)

func TestParse(t *testing.T) {
	for line, want := range map[string]Message{
		online:    {Kind: Online},
		ask:       {Kind: Ask, Seq: 1, Asked: Asked{Port: 3000, FD: -1}},
		ask22:     {Kind: Ask, Seq: 2, Asked: Asked{Address: "127.0.0.1", FD: -1, Index: 1}},
		askUDP:    {Kind: Ask, Seq: 4, Asked: Asked{Port: 53, FD: -1, Family: UDP}},
		askUnix:   {Kind: Ask, Seq: 5, Asked: Asked{Address: "/run/x", FD: -1, Family: Unix}},
		askFD:     {Kind: Ask, Seq: 6, Asked: Asked{FD: 3}},
		listening: {Kind: Listening, Asked: Asked{Port: 3000, FD: -1}},
		closing:   {Kind: Closed, Key: ":3000:0:-1:0"},
		leaving:   {Kind: Leaving, Seq: 9},

		`{"cmd":"NODE_HANDLE_ACK"}`:                                         {Kind: HandleAck},
		`{"cmd":"NODE_HANDLE_NACK"}`:                                        {Kind: HandleLost},
		`{"cmd":"NODE_HANDLE","type":"net.Socket","msg":{}}`:                {Kind: HandleSent},
		`{"cmd":"NODE_CLUSTER","ack":7,"accepted":true,"seq":3}`:            {Kind: Answered, Ack: 7, Taken: true},
		`{"cmd":"NODE_CLUSTER","ack":8,"accepted":false,"seq":4}`:           {Kind: Answered, Ack: 8},
		`{"cmd":"NODE_CLUSTER","ack":8,"accepted":1}`:                       {Kind: Unknown},
		`{"cmd":"NODE_CLUSTER","accepted":true}`:                            {Kind: Unknown},
		`{"cmd":"NODE_UNITGEN","act":"report","token":5,"open":3,"busy":1}`: {Kind: Report, Token: 5, Open: 3, Busy: 1},
		`{"cmd":"NODE_UNITGEN","act":"drain"}`:                              {Kind: Unknown},
		`{"cmd":"NODE_CLUSTER","act":"magic"}`:                              {Kind: Unknown},
		`{"cmd":"NODE_NEWER"}`:                                              {Kind: Unknown},

		// What the program sends is its own business.
		`5`: {}, `null`: {}, `[1,2]`: {}, `{}`: {}, `{"cmd":5}`: {}, `{"cmd":"NODE_"}`: {},
		`{"cmd":"node_cluster","act":"online"}`: {}, `{"CMD":"NODE_CLUSTER","act":"queryServer"}`: {},
		`"Ready"`: {}, `{"type":"axm:monitor"}`: {}, `{"data":{"type":"process:msg"}}`: {},

		// But for what programs made for PM2 say.
		`"ready"`:                       {Kind: Ready},
		`{"type":"process:msg","to":3}`: {Kind: Mail, To: 3},
		`{"type":"process:msg","to":null,"data":{"cmd":"NODE_CLUSTER"}}`:     {Kind: Mail},
		`{"type":"process:msg","cmd":"NODE_CLUSTER","act":"online","seq":0}`: {Kind: Online},
	} {
		got, err := Parse([]byte(line))
		if err != nil || got.Kind != want.Kind || got.Seq != want.Seq || got.Asked != want.Asked || got.Key != want.Key || got.To != want.To ||
			got.Ack != want.Ack || got.Taken != want.Taken || got.Token != want.Token || got.Open != want.Open || got.Busy != want.Busy {
			t.Errorf("%s is %+v, %v, want %+v", line, got, err, want)
		}
	}
	m, err := Parse([]byte(askTLS))
	if err != nil || string(m.Data) != `{"ticketKeys":"00ff"}` || m.Asked.Address != "::" {
		t.Errorf("%s is %+v, %v", askTLS, m, err)
	}
}

func TestParseRefuses(t *testing.T) {
	for _, line := range []string{
		``, `{`, `{"cmd":"NODE_CLUSTER"`, "\x00", `{} {}`,
		`{"cmd":"NODE_CLUSTER","act":"queryServer","port":3000}`,             // no seq: no reply would be heard
		`{"cmd":"NODE_CLUSTER","act":"queryServer","port":70000,"seq":1}`,    // no port
		`{"cmd":"NODE_CLUSTER","act":"queryServer","port":"80","seq":1}`,     // nor is that
		`{"cmd":"NODE_CLUSTER","act":"queryServer","port":8.5,"seq":1}`,      //
		`{"cmd":"NODE_CLUSTER","act":"queryServer","index":-1,"seq":1}`,      //
		`{"cmd":"NODE_CLUSTER","act":"queryServer","addressType":7,"seq":1}`, //
		`{"cmd":"NODE_CLUSTER","act":"queryServer","address":"\u0000","seq":1}`,
		`{"cmd":"NODE_CLUSTER","act":"queryServer","address":"` + strings.Repeat("x", maxText+1) + `","seq":1}`,
		`{"cmd":"NODE_CLUSTER","act":"queryServer","data":"` + strings.Repeat("x", maxData) + `","seq":1}`,
		`{"cmd":"NODE_CLUSTER","act":"queryServer","seq":-1}`,
		`{"cmd":"NODE_CLUSTER","act":"close"}`,
		`{"cmd":"NODE_CLUSTER","act":"close","key":5}`,
		`{"cmd":"NODE_CLUSTER","act":5}`,
		`{"type":"process:msg","to":0}`, `{"type":"process:msg","to":"1"}`, `{"type":"process:msg","to":1e9999}`,
	} {
		if m, err := Parse([]byte(line)); err == nil {
			t.Errorf("%s was taken for %+v", line, m)
		}
	}
}

// ofConnections are the lines that come with every connection, as Node and drain.cjs write them.
var ofConnections = []string{
	`{"cmd":"NODE_HANDLE_ACK"}`,
	`{"cmd":"NODE_CLUSTER","ack":7,"accepted":true,"seq":3}`,
	`{"cmd":"NODE_CLUSTER","ack":7,"accepted":false,"seq":3}`,
	`{"cmd":"NODE_UNITGEN","act":"report","token":5,"open":30,"busy":1}`,
}

func TestConnectionsTakeTheShortWay(t *testing.T) {
	for _, line := range ofConnections {
		if _, ok := parseConnection([]byte(line)); !ok {
			t.Errorf("%s takes the long way", line)
		}
	}
}

// The short way knows no line that the long way does not, and takes it for the same.
func FuzzParseConnection(f *testing.F) {
	for _, line := range ofConnections {
		f.Add([]byte(line))
	}
	f.Add([]byte(`{"cmd":"NODE_CLUSTER","ack":07,"accepted":false,"seq":99999999999999999999}`))
	f.Add([]byte(`{"cmd":"NODE_UNITGEN","act":"report","token":5,"open":2147483648,"busy":01}`))
	f.Fuzz(func(t *testing.T, line []byte) {
		short, ok := parseConnection(line)
		if !ok {
			return
		}
		// A blank makes it take the long way.
		long, err := Parse(append([]byte(" "), line...))
		if err != nil || !reflect.DeepEqual(short, long) {
			t.Errorf("%q is %+v the short way, %+v, %v the long one", line, short, long, err)
		}
	})
}

func BenchmarkParseAnswered(b *testing.B) {
	line := []byte(`{"cmd":"NODE_CLUSTER","ack":1048577,"accepted":true,"seq":123}`)
	for b.Loop() {
		if m, err := Parse(line); err != nil || m.Kind != Answered {
			b.Fatal(m, err)
		}
	}
}

// FuzzParse feeds lines of a hostile program to the parser and to the worker behind it.
func FuzzParse(f *testing.F) {
	for _, line := range []string{online, ask, ask22, askTLS, askUDP, askUnix, askFD, listening, closing, leaving, `"ready"`, `{"type":"process:msg","to":3}`} {
		f.Add([]byte(line))
	}
	app := addresses("[::]:3000", "127.0.0.1:443")
	f.Fuzz(func(t *testing.T, line []byte) {
		m, err := Parse(line)
		if err != nil {
			return
		}
		if len(m.Key) > maxText || len(m.Asked.Address) > maxText || len(m.Data) > maxData ||
			m.Asked.Port < 0 || m.Asked.Port > 65535 || m.Asked.Index < 0 {
			t.Fatalf("%q gave %+v", line, m)
		}
		if _, err := NewPayload(line); m.Kind == Mail && (err != nil || m.To < 0) {
			t.Fatalf("%q is for %d and cannot be sent: %v", line, m.To, err)
		}
		var w Worker
		key, address, err := w.Give(m.Asked, app, 0)
		if err != nil {
			return
		}
		if !w.given(address) || len(w.Missing(app)) != len(app) {
			t.Fatalf("%q was given %s, and the worker is %+v", line, address, w)
		}
		asked := m.Asked
		asked.Port = int(address.TCP.Port())
		if got, ok := w.Listens(asked); !ok || got != address {
			t.Fatalf("%q was given %s and listens on %s, %v", line, address, got, ok)
		}
		if got, ok := w.Close(key); !ok || got != address {
			t.Fatalf("%q was given %s and closed %s, %v", line, address, got, ok)
		}
	})
}

// What is read next overwrites the line: nothing of a message may be in it.
func TestParseSharesNoMemory(t *testing.T) {
	for _, text := range []string{
		online, ask, askTLS, leaving,
		`{"cmd":"NODE_CLUSTER","act":"close","key":"a:1:4:-1:0","seq":4}`,
		`{"type":"process:msg","topic":"first","data":{"x":1},"to":3}`,
	} {
		want, err := Parse([]byte(text))
		if err != nil {
			t.Fatal(err)
		}
		line := []byte(text)
		got, err := Parse(line)
		for i := range line {
			line[i] = 'x'
		}
		if err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("%s: the message becomes %+v, %v, want %+v", text, got, err, want)
		}
	}
}
