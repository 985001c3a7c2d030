package wire

import (
	"net/netip"
	"reflect"
	"strings"
	"testing"
)

var examples = []struct {
	message Message
	fds     int
}{
	{Message{Kind: Listeners, Count: 2}, 2},
	{Message{Kind: Ask, Token: 65535}, 0},
	{Message{Kind: Take, Listener: 3, Count: MaxTake}, 0},
	{Message{Kind: Give, Count: 3, Peers: []Peer{
		{}, {Address: netip.MustParseAddr("192.0.2.1"), Port: 4711}, {Address: netip.MustParseAddr("fe80::1"), Port: 1, Scope: 9},
	}}, 3},
	{Message{Kind: State, Report: Report{Answered: 10, Missed: 2, Closed: 3}}, 0},
	{Message{Kind: State, Token: 9, Report: Report{Answered: 10, Missed: 2, Closed: 3, Busy: 5, Answer: true, Closing: true}}, 0},
}

func parse(b []byte, fds int) (Message, error) {
	if len(b) > 1 && b[1] >= byte(State) {
		return FromInstance(b)
	}
	return FromBalancer(b, fds)
}

func TestMessagesComeBack(t *testing.T) {
	for _, e := range examples {
		b := Append(nil, e.message)
		if len(b) > MaxSize {
			t.Errorf("%+v has %d bytes", e.message, len(b))
		}
		if got, err := parse(b, e.fds); err != nil || !reflect.DeepEqual(got, e.message) {
			t.Errorf("%+v came back as %+v, %v", e.message, got, err)
		}
	}
}

func TestBadMessagesAreRefused(t *testing.T) {
	give := Append(nil, examples[3].message)
	change := func(b []byte, at int, to byte) []byte {
		b = append([]byte(nil), b...)
		b[at] = to
		return b
	}
	for _, c := range []struct {
		b    []byte
		fds  int
		want string
	}{
		{nil, 0, "0 bytes"},
		{change(give, 0, 2), 3, "version 2"},
		{change(give, 1, 9), 3, "unknown kind"},
		{change(give, 1, 99), 3, "unknown kind"},
		{change(give, 4, 0), 0, "count is 0"},
		{change(give, 6, 1), 3, "count is"},
		{give, 2, "2 descriptors, want 3"},
		{give[:len(give)-1], 3, "bytes for 3 peers"},
		{append(give, 0), 3, "1 bytes too many"},
		{change(give, 8, 5), 3, "family 5"},
		{change(give, 9, 1), 3, "padded"},
		{change(give, 10, 1), 3, "has an address"},
		{change(give, 8+peerSize+23, 1), 3, "more than an address"},
		{Append(nil, Message{Kind: Take, Listener: MaxListeners, Count: 1}), 0, "listener 64"},
		{Append(nil, Message{Kind: Listeners, Listener: 1, Count: 1}), 1, "listener 1"},
		{Append(nil, Message{Kind: State, Token: 1}), 0, "token"},
		{Append(nil, Message{Kind: Listeners, Count: MaxListeners + 1}), MaxListeners + 1, "count is 65"},
		{Append(nil, Message{Kind: State, Report: Report{Answered: 1, Missed: 2}}), 0, "contradict"},
		{Append(nil, Message{Kind: State, Report: Report{Answered: 3, Missed: 1, Closed: 3}}), 0, "contradict"},
		{Append(nil, Message{Kind: State, Report: Report{Answered: 1, Busy: 1}}), 0, "unasked"},
		{change(Append(nil, examples[5].message), 4, 8), 0, "unknown flags"},
		{append(Append(nil, examples[5].message), 0), 0, "33 bytes"},
	} {
		if m, err := parse(c.b, c.fds); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%v: got %+v, %v, want an error with %q", c.b, m, err, c.want)
		}
	}
}

// What parses is what Append writes, byte for byte: there is one way to say a thing.
func FuzzParse(f *testing.F) {
	for _, e := range examples {
		f.Add(Append(nil, e.message), e.fds)
	}
	f.Fuzz(func(t *testing.T, b []byte, fds int) {
		for _, parse := range []func() (Message, error){
			func() (Message, error) { return FromBalancer(b, fds) },
			func() (Message, error) { return FromInstance(b) },
		} {
			if m, err := parse(); err == nil && string(Append(nil, m)) != string(b) {
				t.Errorf("%v was read as %+v, which is written as %v", b, m, Append(nil, m))
			}
		}
	})
}
