package simulator

import (
	"context"
	"net/http"
)

// This file holds the operations of the Management API. They run with
// Simulator.mu held.

func (s *Simulator) createSubscriber(c *call) (int, any, error) {
	var payload subscriberPayload
	if err := c.decode(&payload, s.opts.Readings.ValidationStatus); err != nil {
		return 0, nil, err
	}
	now := s.clock.now()
	sub := &subscriber{subject: c.pimURL, status: statusActive, created: now, updated: now}
	if err := s.refusePayload(payload.apply(sub)); err != nil {
		return 0, nil, err
	}
	live := 0
	for _, other := range s.subscribers {
		if other.status != statusDeleted {
			live++
		}
	}
	if live >= maxSubscribers {
		return 0, nil, refuse(http.StatusConflict, "this PIM has %d subscribers, which is the limit", maxSubscribers)
	}
	sub.id = newID(now)
	s.subscribers = append(s.subscribers, sub)
	return http.StatusCreated, sub.view(), nil
}

func (s *Simulator) listSubscribers(*call) (int, any, error) {
	views := []subscriberView{}
	for _, sub := range s.subscribers {
		if sub.status != statusDeleted {
			views = append(views, sub.view())
		}
	}
	return s.list(views, len(views))
}

func (s *Simulator) showSubscriber(c *call) (int, any, error) {
	sub, err := s.subscriberOf(c)
	if err != nil {
		return 0, nil, err
	}
	return http.StatusOK, sub.view(), nil
}

func (s *Simulator) changeSubscriber(c *call) (int, any, error) {
	sub, err := s.subscriberOf(c)
	if err != nil {
		return 0, nil, err
	}
	var payload subscriberPayload
	if err := c.decode(&payload, s.opts.Readings.ValidationStatus); err != nil {
		return 0, nil, err
	}
	changed := *sub
	if err := s.refusePayload(payload.apply(&changed)); err != nil {
		return 0, nil, err
	}
	changed.updated = s.clock.now()
	*sub = changed
	return http.StatusOK, sub.view(), nil
}

func (s *Simulator) deleteSubscriber(c *call) (int, any, error) {
	sub, err := s.subscriberOf(c)
	if err != nil {
		return 0, nil, err
	}
	for _, subscription := range s.live(sub) {
		s.remove(subscription, c)
	}
	sub.status, sub.updated = statusDeleted, s.clock.now()
	return http.StatusOK, sub.view(), nil
}

func (s *Simulator) createSubscription(c *call) (int, any, error) {
	owner, err := s.subscriberOf(c)
	if err != nil {
		return 0, nil, err
	}
	var payload subscriptionPayload
	if err := c.decode(&payload, s.opts.Readings.ValidationStatus); err != nil {
		return 0, nil, err
	}
	set, faults := payload.settings(settings{}, s.rules(c, true))
	if err := s.refusePayload(faults); err != nil {
		return 0, nil, err
	}
	if len(s.live(owner)) >= maxSubscriptions {
		return 0, nil, refuse(http.StatusConflict, "subscriber %q has %d subscriptions, which is the limit", owner.id, maxSubscriptions)
	}
	now := s.clock.now()
	sub := &subscription{id: newID(now), subscriber: owner, status: statusActive, created: now, outbox: newOutbox(s.opts.Pace)}
	sub.declare(set, now, s.opts.ActivationDelay)
	s.subscriptions = append(s.subscriptions, sub)
	s.start(func(ctx context.Context) { s.deliver(ctx, sub) })
	s.logAction(sub, "subscription_created", c)
	s.notify()
	return http.StatusCreated, sub.view(), nil
}

func (s *Simulator) listSubscriptions(c *call) (int, any, error) {
	owner, err := s.subscriberOf(c)
	if err != nil {
		return 0, nil, err
	}
	views := []subscriptionView{}
	for _, sub := range s.live(owner) {
		views = append(views, sub.view())
	}
	return s.list(views, len(views))
}

func (s *Simulator) showSubscription(c *call) (int, any, error) {
	sub, err := s.subscriptionOf(c)
	if err != nil {
		return 0, nil, err
	}
	return http.StatusOK, sub.view(), nil
}

func (s *Simulator) changeSubscription(c *call) (int, any, error) {
	sub, err := s.subscriptionOf(c)
	if err != nil {
		return 0, nil, err
	}
	var payload subscriptionPayload
	if err := c.decode(&payload, s.opts.Readings.ValidationStatus); err != nil {
		return 0, nil, err
	}
	set, faults := payload.settings(*sub.declared, s.rules(c, false))
	if err := s.refusePayload(faults); err != nil {
		return 0, nil, err
	}
	sub.declare(set, s.clock.now(), s.opts.ActivationDelay)
	s.logAction(sub, "subscription_updated", c)
	s.notify()
	return http.StatusOK, sub.view(), nil
}

func (s *Simulator) deleteSubscription(c *call) (int, any, error) {
	sub, err := s.subscriptionOf(c)
	if err != nil {
		return 0, nil, err
	}
	s.remove(sub, c)
	return http.StatusOK, sub.view(), nil
}

func (s *Simulator) suspendSubscription(c *call) (int, any, error) {
	sub, err := s.subscriptionOf(c)
	if err != nil {
		return 0, nil, err
	}
	if sub.status != statusActive {
		return 0, nil, refuse(http.StatusConflict, "subscription %q is %s, and only an active one can be suspended", sub.id, sub.status)
	}
	s.halt(sub, statusSuspended, "Suspended by the user")
	s.logAction(sub, "subscription_suspended_by_the_user", c)
	return http.StatusAccepted, sub.view(), nil
}

func (s *Simulator) resumeSubscription(c *call) (int, any, error) {
	sub, err := s.subscriptionOf(c)
	if err != nil {
		return 0, nil, err
	}
	if sub.status != statusSuspended {
		return 0, nil, refuse(http.StatusConflict, "subscription %q is %s, and only a suspended one can be resumed", sub.id, sub.status)
	}
	s.resume(sub)
	s.logAction(sub, "subscription_resumed", c)
	return http.StatusAccepted, sub.view(), nil
}

// remove deletes a subscription.
func (s *Simulator) remove(sub *subscription, c *call) {
	s.halt(sub, statusDeleted, "")
	s.logAction(sub, "subscription_deleted", c)
}
