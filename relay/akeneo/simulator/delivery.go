package simulator

import (
	"bytes"
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net/http"
	"sync"
	"time"
)

// answerTimeout is how long a destination may take for its whole answer, by
// the wall clock: the platform gives up after 5 s.
const answerTimeout = 5 * time.Second

// maxAnswer is how much of an answer's body is read before the connection is
// given up.
const maxAnswer = 64 << 10

// newClient makes the client that posts events: HTTP/2 where offered, no
// proxies and no redirects.
func newClient(opts Options) *http.Client {
	transport := opts.transport
	if transport == nil {
		transport = &http.Transport{
			TLSClientConfig: &tls.Config{
				MinVersion:         tls.VersionTLS12,
				RootCAs:            opts.Roots,
				InsecureSkipVerify: opts.InsecureDestinations,
			},
			ForceAttemptHTTP2:   true,
			MaxIdleConnsPerHost: opts.Concurrency,
			IdleConnTimeout:     90 * time.Second,
		}
	}
	return &http.Client{
		Transport: transport,
		CheckRedirect: func(*http.Request, []*http.Request) error {
			return http.ErrUseLastResponse
		},
	}
}

// offer queues an event for a subscription that wants it. The caller holds mu.
func (s *Simulator) offer(sub *subscription, e *event) {
	set := sub.settingsAt(e.time)
	tally := &sub.outbox.tally
	switch {
	case sub.status == statusDeleted:
	case set == nil:
		if sub.declared.wants(e.eventType) {
			tally.missed++
		}
	case !set.wants(e.eventType):
	case sub.status == statusSuspended:
		tally.missed++
	default:
		tally.fired++
		s.open++
		sub.outbox.queue = append(sub.outbox.queue, &item{event: e})
		sub.outbox.rouse()
	}
}

// deliver posts a subscription's events until ctx ends or it is deleted, and
// waits for the requests it began. The first one goes alone: the others find
// its connection and share it if it is HTTP/2, where they would otherwise all
// begin a TLS handshake at once.
func (s *Simulator) deliver(ctx context.Context, sub *subscription) {
	slots := make(chan struct{}, s.opts.Concurrency)
	var inFlight sync.WaitGroup
	defer inFlight.Wait()
	for alone := true; s.awaitWork(ctx, sub); {
		select {
		case slots <- struct{}{}:
		case <-ctx.Done():
			return
		}
		it, set := s.next(ctx, sub)
		if it == nil {
			<-slots
			continue
		}
		inFlight.Go(func() {
			defer func() { <-slots }()
			s.attempt(ctx, sub, set, it)
		})
		if alone {
			inFlight.Wait()
			alone = false
		}
	}
}

// awaitWork returns true when something is due, false when the delivery ends.
func (s *Simulator) awaitWork(ctx context.Context, sub *subscription) bool {
	for ctx.Err() == nil {
		s.mu.Lock()
		deleted := sub.status == statusDeleted
		wait, ok := sub.outbox.due(time.Now())
		s.mu.Unlock()
		switch {
		case deleted:
			return false
		case ok && wait == 0:
			return true
		}
		var timer <-chan time.Time // never, when nothing waits for a retry
		if ok {
			timer = time.After(wait)
		}
		select {
		case <-timer:
		case <-sub.outbox.wake:
		case <-ctx.Done():
		}
	}
	return false
}

// next waits as long as the pace asks and takes the item that is due then. It
// gives nil when a suspension emptied the outbox meanwhile, or ctx ended.
func (s *Simulator) next(ctx context.Context, sub *subscription) (*item, *settings) {
	s.mu.Lock()
	wait := sub.outbox.pace.reserve(time.Now())
	s.mu.Unlock()
	if !sleep(ctx, wait) {
		return nil, nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	it := sub.outbox.take(time.Now())
	if it == nil {
		return nil, nil
	}
	it.attempts++
	sub.outbox.tally.attempted(it)
	return it, sub.settingsAt(s.clock.now())
}

// attempt posts an event once and settles what the answer means.
func (s *Simulator) attempt(ctx context.Context, sub *subscription, set *settings, it *item) {
	// A request under way is finished even when the simulator stops, because
	// its answer decides whether the event counts as acknowledged.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), answerTimeout)
	defer cancel()
	body := it.body(sub.id, set.identified)
	began := time.Now()
	code, err := s.post(ctx, set, body)
	s.settle(sub, it, answer{code: code, err: err, took: time.Since(began)}, body)
}

// post sends a body and gives the status of the answer, once all of it is read.
func (s *Simulator) post(ctx context.Context, set *settings, body []byte) (int, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, set.url, bytes.NewReader(body))
	if err != nil {
		return 0, err
	}
	for name, value := range set.headers {
		req.Header[name] = []string{value}
	}
	req.Header["Content-Type"] = []string{"application/json"}
	req.Header["User-Agent"] = []string{"akeneo/event-platform"}
	req.Header["X-Correlation-ID"] = []string{newID(s.clock.now())}
	req.Header["X-AKENEO-SIGNATURE-ALGORITHM"] = []string{"HmacSHA256"}
	req.Header["X-AKENEO-SIGNATURE-PRIMARY"] = []string{sign(set.primary, body)}
	if set.secondary != "" {
		req.Header["X-AKENEO-SIGNATURE-SECONDARY"] = []string{sign(set.secondary, body)}
	}
	resp, err := s.client.Do(req)
	if err != nil {
		return 0, err
	}
	defer resp.Body.Close()
	if _, err := io.Copy(io.Discard, io.LimitReader(resp.Body, maxAnswer)); err != nil {
		return 0, fmt.Errorf("read the answer's body: %w", err)
	}
	return resp.StatusCode, nil
}

// settle decides about an event after an attempt.
func (s *Simulator) settle(sub *subscription, it *item, a answer, body []byte) {
	s.mu.Lock()
	defer s.mu.Unlock()
	defer s.notify()
	now, box := s.clock.now(), &sub.outbox
	box.inFlight--
	box.tally.answered(a)

	switch a.verdict(s.opts.Readings.Any2xx) {
	case acknowledged:
		box.window.add(now, true)
		box.pace.raise()
		s.acknowledge(sub, it, body)
	case throttled:
		box.pace.lower()
		late := now.Sub(it.time) > throttleGrace
		if late {
			s.fail(sub, it, a, now)
		}
		s.retryOrDrop(sub, it, !late && s.opts.Readings.ThrottleKeepsRetries)
	case failed:
		s.fail(sub, it, a, now)
		s.retryOrDrop(sub, it, false)
	case fatal:
		s.suspend(sub, a.fatalReason())
		s.fail(sub, it, a, now)
		s.lose(sub, 1)
	}
}

// fail counts a failed attempt, which may suspend the subscription. The caller
// holds mu.
func (s *Simulator) fail(sub *subscription, it *item, a answer, now time.Time) {
	s.logFailure(sub, a, now)
	sub.outbox.window.add(now, false)
	if sub.outbox.window.broken(now, s.opts.Readings.MinSample) {
		s.suspend(sub, "Success rate dropped below 90%")
	}
	s.opts.Logger.Debug("delivery failed", "type", it.eventType, "event", it.id, "attempt", it.attempts,
		"took", a.took, "answer", a.label(), "err", a.err)
}

// acknowledge closes an event. The caller holds mu.
func (s *Simulator) acknowledge(sub *subscription, it *item, body []byte) {
	s.open--
	sub.outbox.tally.acknowledged++
	if s.opts.KeepBodies {
		s.acked = append(s.acked, Sent{Subscription: sub.id, ID: it.id, Type: it.eventType, Body: body})
	}
}

// retryOrDrop keeps an event for another attempt, if one is left. The caller
// holds mu.
func (s *Simulator) retryOrDrop(sub *subscription, it *item, free bool) {
	box := &sub.outbox
	switch {
	case sub.status != statusActive:
		s.lose(sub, 1)
	case free:
		box.retry(it, time.Now().Add(s.clock.wall(throttlePause)))
	case it.spent < len(retryPauses):
		box.retry(it, time.Now().Add(s.clock.wall(retryPauses[it.spent])))
		it.spent++
	default:
		s.open--
		box.tally.dropped++
		s.opts.Logger.Warn("event dropped after its last attempt", "type", it.eventType, "event", it.id, "attempt", it.attempts)
	}
}

// lose counts events that a suspension or deletion took away. The caller holds
// mu.
func (s *Simulator) lose(sub *subscription, n int) {
	s.open -= n
	sub.outbox.tally.lost += n
}

// suspend is the platform's own suspension. The caller holds mu.
func (s *Simulator) suspend(sub *subscription, reason string) {
	if sub.status != statusActive {
		return
	}
	s.halt(sub, statusSuspended, reason)
	s.logAction(sub, "subscription_suspended_by_the_system", nil)
	s.opts.Logger.Warn("subscription suspended", "subscription", sub.id, "reason", reason)
}

// halt ends deliveries to a subscription, by suspension or deletion. The caller
// holds mu.
func (s *Simulator) halt(sub *subscription, status, reason string) {
	sub.status, sub.reason, sub.updated = status, reason, s.clock.now()
	s.lose(sub, sub.outbox.clear())
	sub.outbox.rouse()
	s.notify()
}

// resume lets a suspended subscription have events again. The caller holds mu.
func (s *Simulator) resume(sub *subscription) {
	sub.status, sub.reason, sub.updated = statusActive, "", s.clock.now()
	sub.outbox.window = window{}
	s.notify()
}
