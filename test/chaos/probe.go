package main

import (
	"bufio"
	"context"
	"fmt"
	"path/filepath"
	"slices"
	"sync"
	"time"
)

// How long PID 1 may take to answer; readingLimit is for a step in which it reads all units again,
// which it does for up to a second on a machine that is busy, in one go.
const (
	answerLimit  = time.Second
	readingLimit = 4 * time.Second
)

// processLimit ends a run. The container has some 100 processes; it has no limit of its own that
// would keep one that makes more and more from taking the machine's process numbers.
const processLimit = 2000

// askerProgram is test/chaos/asker in the container.
const askerProgram = "/usr/local/bin/asker"

// prober watches PID 1 as long as a run lasts: how fast it answers, and that it waits for its
// children.
type prober struct {
	w      *world
	excess context.CancelCauseFunc // ends the run

	mu    sync.Mutex
	asked int           // since the last call of take
	worst time.Duration // of the answers
	late  time.Duration // by how much a question was late at most
}

// run reads what the asker prints until ctx ends.
func (p *prober) run(ctx context.Context) {
	if err := p.read(ctx); ctx.Err() == nil {
		p.excess(fmt.Errorf("ask PID 1: asker has ended: %w", err))
	}
}

func (p *prober) read(ctx context.Context) error {
	cmd, err := p.w.c.Command(ctx, askerProgram)
	if err != nil {
		return err
	}
	if _, err := cmd.StdinPipe(); err != nil {
		return err
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return err
	}
	if err := cmd.Start(); err != nil {
		return err
	}
	for lines := bufio.NewScanner(out); lines.Scan(); {
		var took, late int
		if _, err := fmt.Sscan(lines.Text(), &took, &late); err != nil {
			return err
		}
		p.mu.Lock()
		p.asked++
		p.worst = max(p.worst, time.Duration(took)*time.Millisecond)
		p.late = max(p.late, time.Duration(late)*time.Millisecond)
		p.mu.Unlock()
		if err := p.countProcesses(); err != nil {
			p.excess(err)
		}
	}
	return cmd.Wait()
}

// countProcesses returns an error if there are too many, ended ones that PID 1 has not waited for
// among them.
func (p *prober) countProcesses() error {
	init, err := p.w.c.Init()
	if err != nil {
		return err
	}
	all, err := filepath.Glob(fmt.Sprintf("/proc/%d/root/proc/[1-9]*", init))
	if err == nil && len(all) > processLimit {
		err = fmt.Errorf("the system has over %d processes", processLimit)
	}
	return err
}

// take returns an error if PID 1 was too slow since the last call, on a machine that was not.
func (p *prober) take(s step) error {
	limit := answerLimit
	if slices.ContainsFunc(s.acts, func(a act) bool { return a.fault.reads }) {
		limit = readingLimit
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	asked, worst, late := p.asked, p.worst, p.late
	p.asked, p.worst, p.late = 0, 0, 0
	if asked == 0 {
		return fmt.Errorf("PID 1 did not answer once")
	}
	if worst > limit+4*late {
		return fmt.Errorf("PID 1 took %s to answer", worst.Round(time.Millisecond))
	}
	return nil
}
