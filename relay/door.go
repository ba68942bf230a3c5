package relay

import (
	"context"
	"errors"
	"log/slog"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/time/rate"

	"github.com/pimrelay/pimrelay/relay/akeneo"
	"github.com/pimrelay/pimrelay/relay/edge"
	"github.com/pimrelay/pimrelay/relay/journal"
	"github.com/pimrelay/pimrelay/relay/observe"
)

// acceptor is what stands behind the door: it verifies a delivery, stores it,
// and only then lets it be acknowledged.
type acceptor struct {
	receivers atomic.Pointer[map[string]*akeneo.Receiver] // by source
	journal   *journal.Journal
	health    *observe.Health
	log       *slog.Logger
	refused   *prometheus.CounterVec

	notStoredLogged *rate.Sometimes // a full disk must not fill the log
}

// seldom is how often a fault that each delivery may show is logged; the metrics
// count them all.
const seldom = 10 * time.Second

func newAcceptor(j *journal.Journal, health *observe.Health, log *slog.Logger, r prometheus.Registerer) *acceptor {
	a := &acceptor{journal: j, health: health, log: log,
		refused: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "pimrelay_relay_not_stored_total", Help: "Deliveries that were not stored as events, by reason.",
		}, []string{"source", "reason"})}
	a.notStoredLogged = &rate.Sometimes{Interval: seldom}
	r.MustRegister(a.refused)
	return a
}

// Accept is the way of one delivery. It answers Accepted only when the event is
// on disk.
func (a *acceptor) Accept(ctx context.Context, d *edge.Delivery) edge.Answer {
	receiver := (*a.receivers.Load())[d.Source]
	if receiver == nil { // the source has just left: its route goes with it
		return edge.Unavailable
	}
	event, err := receiver.Receive(d.Header, d.Body, d.Received)
	var unreadable *akeneo.UnreadableError
	switch {
	case err == nil:
	case errors.Is(err, akeneo.ErrUnsigned):
		return edge.Unsigned
	case errors.As(err, &unreadable):
		return a.keepUnreadable(ctx, d, unreadable)
	default:
		return edge.Unverified // the door raises the alarm
	}
	if _, err := a.journal.Append(ctx, &event); err != nil {
		return a.notStored(d.Source, err)
	}
	a.health.Clear(journalKey)
	return edge.Accepted
}

// keepUnreadable stores a delivery that the platform signed and that is no
// CloudEvent. Refusing it would only bring it back.
func (a *acceptor) keepUnreadable(ctx context.Context, d *edge.Delivery, cause *akeneo.UnreadableError) edge.Answer {
	if err := a.journal.AppendUnreadable(ctx, d.Source, d.Body, cause.Error(), d.Received); err != nil {
		return a.notStored(d.Source, err)
	}
	a.refused.WithLabelValues(d.Source, "unreadable").Inc()
	a.log.Warn("delivery kept as an unreadable dead letter", "source", d.Source, "err", cause)
	return edge.Accepted
}

func (a *acceptor) notStored(source string, err error) edge.Answer {
	a.refused.WithLabelValues(source, "journal").Inc()
	a.health.Warn(journalKey, "events cannot be stored, deliveries are answered 429: "+err.Error())
	a.notStoredLogged.Do(func() { a.log.Error("event not stored", "source", source, "err", err) })
	return edge.Unavailable
}

const journalKey = "journal"
