package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"sync"

	"github.com/unitgen/unitgen/activation"
)

// mailbox keeps the latest message. Without --messages it stays empty.
type mailbox struct {
	messages *activation.Messages // nil without
	received sync.WaitGroup

	mu     sync.Mutex
	latest json.RawMessage
}

// messages receives until Close.
func messages(ctx context.Context) (*mailbox, error) {
	m, err := activation.OpenMessages(ctx)
	if errors.Is(err, activation.ErrNotPassed) {
		return &mailbox{}, nil
	}
	if err != nil {
		return nil, err
	}
	box := &mailbox{messages: m}
	box.received.Go(box.receive)
	return box, nil
}

func (b *mailbox) receive() {
	for {
		message, err := b.messages.Receive()
		if err != nil {
			return // the balancer was stopped, and this instance will be too
		}
		b.mu.Lock()
		b.latest = message
		b.mu.Unlock()
	}
}

func (b *mailbox) Close() {
	if b.messages != nil {
		b.messages.Close()
		b.received.Wait()
	}
}

func (b *mailbox) last(w http.ResponseWriter, r *http.Request) {
	b.mu.Lock()
	defer b.mu.Unlock()
	fmt.Fprintf(w, "%s\n", b.latest)
}

func (b *mailbox) tell(w http.ResponseWriter, r *http.Request) {
	to, err := strconv.Atoi(r.FormValue("to"))
	switch {
	case b.messages == nil:
		http.Error(w, "the app has no messages", http.StatusNotImplemented)
	case err != nil:
		http.Error(w, "to must be the number of an instance, or 0 for all others", http.StatusBadRequest)
	default:
		if err := b.messages.Send(to, r.FormValue("text")); err != nil {
			http.Error(w, err.Error(), http.StatusBadGateway)
		}
	}
}
