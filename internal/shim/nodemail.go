package shim

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"

	"github.com/unitgen/unitgen/internal/control"
	"github.com/unitgen/unitgen/internal/nodecluster"
)

// Sent is the answer of method Send: the instances whose programs are being sent the message, and those that do not read
// theirs and so will not get it.
type Sent struct {
	Instances []int `json:"instances"`
	Dropped   []int `json:"dropped,omitempty"`
}

// send answers method Send: a message for the program of one instance, or of all. It waits for no program.
func (s *Shim) send(ctx context.Context, r *control.Request) (any, error) {
	var p struct {
		Instance int             `json:"instance"` // 0 for all
		Message  json.RawMessage `json:"message"`
	}
	if err := r.Decode(&p); err != nil {
		return nil, err
	}
	letter, err := nodecluster.NewLetter(p.Message)
	if err != nil {
		return nil, err
	}
	var sent Sent
	if err := s.run1(ctx, func() error { sent = s.post(letter, p.Instance, 0); return nil }); err != nil {
		return nil, err
	}
	if len(sent.Instances)+len(sent.Dropped) == 0 {
		reason := "no instance runs a program that takes messages"
		if p.Instance != 0 {
			reason = fmt.Sprintf("instance %d is not there, or runs no program that takes messages", p.Instance)
		}
		return nil, &control.Error{Name: control.ErrNoSuchInstance, Reason: reason}
	}
	return sent, nil
}

// post gives a letter to instance to, or to all but instance from if to is 0.
func (s *Shim) post(l nodecluster.Letter, to, from int) (sent Sent) {
	for number, in := range s.instances {
		if !in.reachable() || to != 0 && number != to || to == 0 && number == from {
			continue
		}
		if in.node.channel.Post(l) {
			in.node.deaf = false
			sent.Instances = append(sent.Instances, number)
			continue
		}
		sent.Dropped = append(sent.Dropped, number)
		if !in.node.deaf { // once, until it reads again
			in.node.deaf = true
			s.log.Warn("program does not read its messages, those that follow are dropped", "instance", number)
		}
	}
	slices.Sort(sent.Instances)
	slices.Sort(sent.Dropped)
	return sent
}

// passOn sends on what a program sent for others.
func (s *Shim) passOn(from *instance, m nodecluster.Message) {
	letter, err := nodecluster.NewLetter(m.Text)
	if err != nil {
		s.log.Warn("pass message on, ignoring", "instance", from.number, "error", err)
		return
	}
	if sent := s.post(letter, m.To, from.number); m.To != 0 && len(sent.Instances)+len(sent.Dropped) == 0 {
		s.log.Debug("program sent a message to an instance that is not there, ignoring", "instance", from.number, "to", m.To)
	}
}
