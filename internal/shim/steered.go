package shim

import (
	"context"
	"fmt"
	"time"

	"github.com/unitgen/unitgen/internal/control"
)

// steeredLook is how often the shim looks whether an instance is on the ring.
const steeredLook = 20 * time.Millisecond

// steeredTo answers method Steered when an instance takes connections: whoever is to stop another
// one next waits for it. It does so too while no instance of the app takes any, as of programs
// without connections: no other one has any to lose.
func (s *Shim) steeredTo(ctx context.Context, r *control.Request) error {
	var p control.Instance
	if err := r.Decode(&p); err != nil {
		return err
	}
	look := time.NewTicker(steeredLook)
	defer look.Stop()
	for {
		up := false
		err := s.run1(ctx, func() error {
			b, ok := s.pool.Backend(p.Instance)
			if !ok {
				return &control.Error{Name: control.ErrNoSuchInstance, Reason: fmt.Sprintf("instance %d has not joined", p.Instance)}
			}
			up = b.InRing() || len(s.ring) == 0
			return nil
		})
		if up || err != nil {
			return err
		}
		select {
		case <-look.C:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}
