package relay

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"unicode/utf8"

	"github.com/pimrelay/pimrelay/relay/admin"
	"github.com/pimrelay/pimrelay/relay/journal"
)

// The methods of admin.Daemon beside Status and Reload: what an operator does to
// the running daemon.

// PauseForwarder makes a forwarder's lane stand still, or go on. A reload keeps
// it so; a restart of the daemon ends the pause.
func (r *Relay) PauseForwarder(name string, paused bool) error {
	if !r.lanes.setPaused(name, paused) {
		return r.unknownForwarder(name)
	}
	r.Logger.Info("forwarder paused or resumed", "forwarder", name, "paused", paused)
	return nil
}

func (r *Relay) unknownForwarder(name string) error {
	var names []string
	for _, l := range r.lanes.list() {
		names = append(names, l.Name)
	}
	return fmt.Errorf("forwarder %q: %w, there are %s", name, admin.ErrUnknown, strings.Join(names, ", "))
}

// DeadLetters lists dead letters, the newest first.
func (r *Relay) DeadLetters(ctx context.Context, q admin.DeadLetterQuery) ([]admin.DeadLetter, error) {
	letters, err := r.journal.DeadLetters(ctx, filter(q))
	if err != nil {
		return nil, err
	}
	var out []admin.DeadLetter
	for _, letter := range letters {
		out = append(out, deadLetter(letter))
	}
	return out, nil
}

// DeadLetter returns one dead letter with its event.
func (r *Relay) DeadLetter(ctx context.Context, number int64) (admin.DeadLetterDetail, error) {
	letter, event, err := r.journal.DeadLetter(ctx, number)
	if errors.Is(err, journal.ErrNoDeadLetter) {
		err = fmt.Errorf("dead letter %d: %w: it may have expired, or was retried or discarded", number, admin.ErrUnknown)
	}
	if err != nil {
		return admin.DeadLetterDetail{}, err
	}
	detail := admin.DeadLetterDetail{DeadLetter: deadLetter(letter), Body: text(letter.Body)}
	if event != nil {
		detail.Received, detail.Entity, detail.Body = event.Received, event.Entity, text(event.Body)
	}
	return detail, nil
}

// RetryDeadLetters makes the events of dead letters due again.
func (r *Relay) RetryDeadLetters(ctx context.Context, q admin.DeadLetterQuery) (int, error) {
	n, err := r.journal.RetryDeadLetters(ctx, filter(q))
	r.Logger.Info("dead letters retried", "forwarder", q.Forwarder, "count", n)
	return n, err
}

// DiscardDeadLetters deletes dead letters.
func (r *Relay) DiscardDeadLetters(ctx context.Context, q admin.DeadLetterQuery) (int, error) {
	n, err := r.journal.DiscardDeadLetters(ctx, filter(q))
	r.Logger.Info("dead letters discarded", "forwarder", q.Forwarder, "count", n)
	return n, err
}

// Replay makes stored events due again for a forwarder.
func (r *Relay) Replay(ctx context.Context, q admin.ReplayQuery) (int, error) {
	if _, ok := r.lanes.get(q.Forwarder); !ok {
		return 0, r.unknownForwarder(q.Forwarder)
	}
	n, err := r.journal.Replay(ctx, q.Forwarder, journal.Filter{From: q.From, To: q.To, Types: q.Types, Entity: q.Entity, IDs: q.IDs})
	r.Logger.Info("events replayed", "forwarder", q.Forwarder, "count", n)
	return n, err
}

func filter(q admin.DeadLetterQuery) journal.DeadLetterFilter {
	return journal.DeadLetterFilter{
		Forwarder: q.Forwarder, Source: q.Source, Type: q.Type, Unreadable: q.Unreadable, Reason: q.Reason,
		Since: q.Since, Until: q.Until, Numbers: q.Numbers, After: q.After, Limit: q.Limit,
	}
}

func deadLetter(d journal.DeadLetter) admin.DeadLetter {
	return admin.DeadLetter{
		Number: d.Number, Forwarder: d.Forwarder, Source: d.Source, ID: d.ID, Type: d.Type,
		Reason: d.Reason, Answer: d.Answer, Attempts: d.Attempts, First: d.First, Last: d.Last,
	}
}

// text is a body for people and JSON.
func text(body []byte) string { return strings.ToValidUTF8(string(body), string(utf8.RuneError)) }
