package shim

import (
	"context"

	"github.com/unitgen/unitgen/internal/control"
	"github.com/unitgen/unitgen/internal/shim/path"
)

// listening answers method Listening, with "more", each time that something has changed. The last
// answer, with nothing missing, comes when the instance's program takes connections, and with
// "message" when the program has sent "ready".
func (s *Shim) listening(ctx context.Context, r *control.Request) (any, error) {
	var p control.ListeningParameters
	if err := r.Decode(&p); err != nil {
		return nil, err
	}
	for {
		var (
			now     control.Listening
			changed <-chan struct{}
		)
		if err := s.run1(ctx, func() (err error) {
			now, err = s.missing(p.Instance)
			now.Silent = p.Message && s.channels.Silent(p.Instance)
			changed = s.channels.Changed()
			return err
		}); err != nil {
			return nil, err
		}
		if len(now.Missing) == 0 && !now.Silent {
			return now, nil
		}
		if r.More {
			if err := r.Send(now); err != nil {
				return nil, err
			}
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

// missing is what an instance's program does not serve yet. A program that does not tell by its
// channel serves all or nothing, and one address stands for all.
func (s *Shim) missing(number int) (control.Listening, error) {
	if s.instances[number] == nil {
		return control.Listening{}, path.NotJoined(number)
	}
	now, told := s.channels.Listening(number)
	if !told && s.path.Serves(number) != path.Yes {
		now.Missing = []string{s.path.Describe().Addresses[0].Address}
	}
	return now, nil
}
