package main

import (
	"context"
	"sync"
	"time"
)

// pace keeps messages apart, whoever sends them.
type pace struct {
	interval time.Duration

	mu   sync.Mutex
	next time.Time // when the next message may go; guarded by mu
}

// wait waits for its turn. If that does not come before the deadline of ctx, it
// returns at once how long it would take.
func (p *pace) wait(ctx context.Context) (later time.Duration, err error) {
	turn, later := p.reserve(ctx)
	if later > 0 {
		return later, nil
	}
	timer := time.NewTimer(time.Until(turn))
	defer timer.Stop()
	select {
	case <-timer.C:
		return 0, nil
	case <-ctx.Done():
		return 0, ctx.Err()
	}
}

// answerTime is what must be left of a delivery's time for the chat's answer.
const answerTime = 2 * time.Second

func (p *pace) reserve(ctx context.Context) (turn time.Time, later time.Duration) {
	p.mu.Lock()
	defer p.mu.Unlock()
	now := time.Now()
	turn = p.next
	if turn.Before(now) {
		turn = now
	}
	if deadline, ok := ctx.Deadline(); ok && turn.After(now) && deadline.Sub(turn) < answerTime {
		return turn, turn.Sub(now)
	}
	p.next = turn.Add(p.interval)
	return turn, 0
}

// hold lets nothing go for a while, because the chat has said so.
func (p *pace) hold(after time.Duration) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if until := time.Now().Add(after); until.After(p.next) {
		p.next = until
	}
}
