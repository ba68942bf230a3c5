package subscription

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/pimrelay/pimrelay/relay/akeneo"
)

// uncertainError is an error of a create that may have been carried out.
type uncertainError struct{ err error }

func (e *uncertainError) Error() string {
	return e.err.Error() + " (it may have been created all the same)"
}

func (e *uncertainError) Unwrap() error { return e.err }

// created marks the error of a create as uncertain, unless the answer says that
// nothing was created.
func created(err error) error {
	var refused *akeneo.APIError
	if err == nil || errors.As(err, &refused) && refused.Status < http.StatusInternalServerError {
		return err
	}
	return &uncertainError{err}
}

// ensure makes one attempt. What concerns one subscription does not keep it from
// the others.
func (w *worker) ensure(ctx context.Context) error {
	select {
	case w.turn <- struct{}{}:
		defer func() { <-w.turn }()
	case <-ctx.Done():
		return ctx.Err()
	}
	next := w.declared()
	err := w.ensureAll(ctx, &next)
	next.Ensured = err == nil
	if err != nil {
		next.Err = err.Error()
	}
	w.publish(next)
	return err
}

func (w *worker) ensureAll(ctx context.Context, status *SourceStatus) error {
	subscriber, err := w.ensureSubscriber(ctx)
	if err != nil {
		return err
	}
	status.SubscriberID = subscriber.ID
	existing, err := w.client.Subscriptions(ctx, subscriber.ID)
	if err != nil {
		return err
	}
	existing = slices.DeleteFunc(existing, func(s akeneo.Subscription) bool { return s.Status == akeneo.StatusDeleted })
	status.Undeclared = w.undeclared(existing)
	var errs []error
	count := len(existing)
	for i := range status.Subscriptions {
		one := &status.Subscriptions[i]
		isNew, err := w.ensureOne(ctx, subscriber.ID, existing, count, one)
		if isNew {
			count++
		}
		if err != nil {
			one.Err = err.Error()
			errs = append(errs, fmt.Errorf("subscription %q: %w", one.Key, err))
		}
	}
	if err := errors.Join(errs...); err != nil {
		return err
	}
	return w.noteReplaced()
}

// ensureSubscriber finds the source's subscriber, by its id or else by its name,
// or creates it, and changes what differs.
func (w *worker) ensureSubscriber(ctx context.Context) (akeneo.Subscriber, error) {
	all, err := w.client.Subscribers(ctx)
	if err != nil {
		return akeneo.Subscriber{}, err
	}
	all = slices.DeleteFunc(all, func(s akeneo.Subscriber) bool { return s.Status == akeneo.StatusDeleted })
	want := akeneo.SubscriberSpec{Name: w.source.Subscriber.Name, TechnicalEmail: w.source.Subscriber.TechnicalEmail}
	found, ok := w.findSubscriber(all)
	switch {
	case !ok && len(all) >= akeneo.MaxSubscribers:
		return found, fmt.Errorf("the PIM has %d subscribers already, which is the platform's limit: delete one, or set subscriber.name to the name of one",
			len(all))
	case !ok:
		if found, err = w.client.CreateSubscriber(ctx, want); err != nil {
			return found, created(err)
		}
		w.logger.Info("subscriber created")
	case found.Status == akeneo.StatusRevoked:
		return found, fmt.Errorf("the platform has revoked subscriber %q: connect the app or the connection to the PIM again, and set another subscriber.name", found.Name)
	case found.Name != want.Name || !strings.EqualFold(found.TechnicalEmail, want.TechnicalEmail):
		if found, err = w.client.UpdateSubscriber(ctx, found.ID, want); err != nil {
			return found, err
		}
		w.logger.Info("subscriber changed")
	}
	if w.state.source(w.source.Name).SubscriberID == found.ID {
		return found, nil
	}
	return found, w.state.update(w.source.Name, func(s *sourceState) { s.SubscriberID = found.ID })
}

// findSubscriber picks the subscriber that is in the state, whose name may be an
// earlier one, or else the oldest one of the declared name. A revoked one is
// taken only for want of another, and only by its name.
func (w *worker) findSubscriber(all []akeneo.Subscriber) (akeneo.Subscriber, bool) {
	id := w.state.source(w.source.Name).SubscriberID
	var ours []akeneo.Subscriber
	for _, s := range all {
		named := s.Name == w.source.Subscriber.Name && (s.Subject == "" || sameURL(s.Subject, w.source.PIM.URL))
		if named || s.ID == id && s.Status != akeneo.StatusRevoked {
			ours = append(ours, s)
		}
	}
	if len(ours) == 0 {
		return akeneo.Subscriber{}, false
	}
	return slices.MinFunc(ours, func(a, b akeneo.Subscriber) int {
		return cmp.Or(trueFirst(b.Status == akeneo.StatusRevoked, a.Status == akeneo.StatusRevoked),
			trueFirst(a.ID == id, b.ID == id), a.CreatedAt.Compare(b.CreatedAt), strings.Compare(a.ID, b.ID))
	}), true
}

// ensureOne finds or creates one subscription, changes what differs, and fills
// status. existing are the subscriber's subscriptions before this attempt, and
// count how many there are now.
func (w *worker) ensureOne(
	ctx context.Context, subscriberID string, existing []akeneo.Subscription, count int, status *SubscriptionStatus,
) (isNew bool, err error) {
	remembered := w.state.source(w.source.Name).Subscriptions[status.Key]
	found, ok := w.findSubscription(existing, remembered, status)
	if !ok {
		if count >= akeneo.MaxSubscriptions {
			return false, fmt.Errorf("the subscriber has %d subscriptions already, which is the platform's limit: delete one at the platform", count)
		}
		found, err = w.client.CreateSubscription(ctx, subscriberID, w.spec(status))
		if err != nil {
			return false, created(err)
		}
		w.logger.Info("subscription created", "subscription", status.Key)
	}
	status.ID, status.Status = found.ID, found.Status
	w.warn(status)
	if ok && found.Status == akeneo.StatusRevoked {
		return false, nil // nothing can be changed of it
	}
	if ok {
		if err := w.change(ctx, subscriberID, found, remembered, status); err != nil {
			return false, err
		}
	}
	return !ok, w.remember(status)
}

// findSubscription picks the subscription whose URL is status.URL. Of several it
// takes the one that is in the state, or else the oldest, and says so.
func (w *worker) findSubscription(
	existing []akeneo.Subscription, remembered subscriptionState, status *SubscriptionStatus,
) (akeneo.Subscription, bool) {
	var ours []akeneo.Subscription
	for _, s := range existing {
		if s.URL != "" && sameURL(s.URL, status.URL) {
			ours = append(ours, s)
		}
	}
	if len(ours) == 0 {
		return akeneo.Subscription{}, false
	}
	best := slices.MinFunc(ours, func(a, b akeneo.Subscription) int {
		return cmp.Or(trueFirst(b.Status == akeneo.StatusRevoked, a.Status == akeneo.StatusRevoked),
			trueFirst(a.ID == remembered.ID, b.ID == remembered.ID),
			a.CreatedAt.Compare(b.CreatedAt), strings.Compare(a.ID, b.ID))
	})
	if len(ours) > 1 {
		w.logger.Warn("several subscriptions have the same URL, delete the others", "subscription", status.Key, "kept", best.ID)
	}
	return best, true
}

// spec is what a subscription is to be.
func (w *worker) spec(status *SubscriptionStatus) akeneo.SubscriptionSpec {
	declared := w.source.Subscriptions[status.Key]
	return akeneo.SubscriptionSpec{
		Destination: akeneo.Destination{
			URL: status.URL, Primary: w.source.Secrets.Primary, Secondary: w.source.Secrets.Secondary,
		},
		Events:                status.Events,
		Filter:                declared.Filter,
		SendProductIdentifier: declared.SendProductIdentifier,
	}
}

// change sends what differs between a subscription and its declaration. Whether
// the secrets differ cannot be read from the platform: they do unless they are
// the last ones that were sent to this very subscription.
func (w *worker) change(
	ctx context.Context, subscriberID string, found akeneo.Subscription, remembered subscriptionState, status *SubscriptionStatus,
) error {
	want := w.spec(status)
	change, what := differences(found, want)
	if remembered.ID != found.ID || remembered.SecretsHash != w.secretsHash() {
		change.Destination = &want.Destination
		what = append(what, "secrets")
	}
	if len(what) == 0 {
		return nil
	}
	if change.Destination != nil {
		if err := w.forgetSecrets(status.Key); err != nil {
			return err
		}
	}
	changed, err := w.client.UpdateSubscription(ctx, subscriberID, found.ID, change)
	if err != nil {
		return err
	}
	w.logger.Info("subscription changed", "subscription", status.Key, "what", strings.Join(what, ", "))
	status.Status = changed.Status
	if _, still := differences(changed, want); len(still) > 0 {
		status.Err = "the platform has accepted a change and kept its own value of: " + strings.Join(still, ", ")
		w.logger.Warn("subscription keeps values of its own", "subscription", status.Key, "what", strings.Join(still, ", "))
	}
	return nil
}

// differences are what to change of a subscription, secrets apart, and the names
// of it. The order of events means nothing.
func differences(have akeneo.Subscription, want akeneo.SubscriptionSpec) (change akeneo.SubscriptionChange, what []string) {
	if events := slices.Sorted(slices.Values(have.Events)); !slices.Equal(slices.Compact(events), want.Events) {
		change.Events = want.Events
		what = append(what, "events")
	}
	if strings.TrimSpace(have.Filter) != strings.TrimSpace(want.Filter) {
		change.Filter = &want.Filter
		what = append(what, "filter")
	}
	if have.SendProductIdentifier != want.SendProductIdentifier {
		change.SendProductIdentifier = &want.SendProductIdentifier
		what = append(what, "send_product_identifier")
	}
	return change, what
}

// warn tells a person of a subscription that delivers nothing.
func (w *worker) warn(status *SubscriptionStatus) {
	switch status.Status {
	case akeneo.StatusSuspended:
		w.logger.Warn("subscription is suspended, resume it within 10 days to be able to replay its events", "subscription", status.Key)
	case akeneo.StatusRevoked:
		w.logger.Warn("subscription is revoked, delete it at the platform to have it made anew", "subscription", status.Key)
	}
}

// remember puts the subscription into the state, as it stands now.
func (w *worker) remember(status *SubscriptionStatus) error {
	one := subscriptionState{
		ID:          status.ID,
		Patterns:    w.source.Subscriptions[status.Key].Events,
		Events:      status.Events,
		SecretsHash: w.secretsHash(),
	}
	old := w.state.source(w.source.Name).Subscriptions[status.Key]
	if old.ID == one.ID && old.SecretsHash == one.SecretsHash &&
		slices.Equal(old.Patterns, one.Patterns) && slices.Equal(old.Events, one.Events) {
		return nil
	}
	return w.state.update(w.source.Name, func(s *sourceState) { s.Subscriptions[status.Key] = one })
}

// forgetSecrets notes, before other secrets are sent, that it is not known which
// ones the platform has: the answer may get lost, and the declaration may change
// back before the next attempt.
func (w *worker) forgetSecrets(key string) error {
	one := w.state.source(w.source.Name).Subscriptions[key]
	if one.SecretsHash == "" {
		return nil
	}
	one.SecretsHash = ""
	return w.state.update(w.source.Name, func(s *sourceState) { s.Subscriptions[key] = one })
}

func (w *worker) secretsHash() string {
	return w.state.hash(w.source.Secrets.Primary, w.source.Secrets.Secondary)
}

// noteReplaced notes when all subscriptions have got the configuration's secret
// in place of a generated one.
func (w *worker) noteReplaced() error {
	known := w.state.source(w.source.Name)
	if known.GeneratedPrimary == "" || string(w.source.Secrets.Primary) == known.GeneratedPrimary || !known.GeneratedReplaced.IsZero() {
		return nil
	}
	now := time.Now().UTC()
	return w.state.update(w.source.Name, func(s *sourceState) { s.GeneratedReplaced = now })
}

// declared is the status before anything is known.
func (w *worker) declared() SourceStatus {
	status := SourceStatus{Source: w.source.Name, Since: time.Now().UTC()}
	remembered := w.state.source(w.source.Name).Subscriptions
	for _, key := range slices.Sorted(maps.Keys(w.source.Subscriptions)) {
		patterns := w.source.Subscriptions[key].Events
		events := remembered[key].Events
		if len(events) == 0 || !slices.Equal(remembered[key].Patterns, patterns) {
			events, _ = akeneo.Expand(patterns) // Validate has seen that they can be
		}
		status.Subscriptions = append(status.Subscriptions, SubscriptionStatus{
			Key: key, URL: w.source.url(key), Events: events, Since: status.Since,
		})
	}
	return status
}

// undeclared are the ids of the subscriptions below the source's URL that are
// not declared.
func (w *worker) undeclared(existing []akeneo.Subscription) []string {
	var ids []string
	below := normalURL(w.source.BaseURL) + "/"
	for _, s := range existing {
		key, ours := strings.CutPrefix(normalURL(s.URL), below)
		if _, declared := w.source.Subscriptions[key]; !ours || declared {
			continue
		}
		ids = append(ids, s.ID)
		w.logger.Warn("a subscription that is not declared delivers to this source, declare it or delete it at the platform", "id", s.ID)
	}
	return ids
}

// publish makes next the status. What has not changed keeps its Since, and what
// the attempt did not come to keeps what is known of it.
func (w *worker) publish(next SourceStatus) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.status.Ensured == next.Ensured && w.status.Err == next.Err {
		next.Since = w.status.Since
	}
	next.SubscriberID = cmp.Or(next.SubscriberID, w.status.SubscriberID)
	counts := map[string]float64{}
	for i := range next.Subscriptions {
		one, old := &next.Subscriptions[i], w.status.Subscriptions[i] // the same keys: the declaration does not change
		one.ID, one.Status = cmp.Or(one.ID, old.ID), cmp.Or(one.Status, old.Status)
		if one.Status == old.Status && one.Err == old.Err {
			one.Since = old.Since
		}
		counts[one.label()]++
	}
	w.status = next
	w.metrics.count(w.source.Name, counts)
}

// trueFirst compares so that what is true comes first.
func trueFirst(a, b bool) int {
	switch {
	case a == b:
		return 0
	case a:
		return -1
	}
	return 1
}
