package akeneo

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"

	"github.com/pimrelay/pimrelay/sdk"
)

// Client calls the Management API of the Event Platform on behalf of one PIM
// connection or app. It is safe for concurrent use.
//
// Each call has 10 s. Reading calls are repeated twice after a transport error,
// a 5xx or a 429; calls that change something are sent once, because after an
// error other than an *APIError below 500 they may have been carried out all
// the same: look before sending again. An expired token is renewed before and,
// once, after a 401. No error and no log line holds a secret.
type Client struct {
	http     *http.Client
	tokens   *tokens
	pim      PIM
	pimURL   string // without a slash at its end
	platform string // up to and with "/api/v1"
}

// NewClient returns a client for the platform at platformURL. Both it and
// pim.URL are as CheckURL has them. A nil client stands for one with the
// defaults of net/http, among them the system's certificate authorities and
// the proxy of the environment.
func NewClient(pim PIM, platformURL string, client *http.Client) (*Client, error) {
	if err := pim.Validate().Err(); err != nil {
		return nil, fmt.Errorf("pim: %w", err)
	}
	if err := CheckURL(platformURL); err != nil {
		return nil, fmt.Errorf("platform_url: %w", err)
	}
	own := withoutRedirects(client)
	pimURL := strings.TrimRight(pim.URL, "/")
	return &Client{
		http:     own,
		tokens:   newTokens(own, pim, pimURL),
		pim:      pim,
		pimURL:   pimURL,
		platform: strings.TrimRight(platformURL, "/") + "/api/v1",
	}, nil
}

// Subscribers lists the subscribers of this connection, at most 20.
func (c *Client) Subscribers(ctx context.Context) ([]Subscriber, error) {
	var all []Subscriber
	err := c.call(ctx, "list subscribers", http.MethodGet, c.path(), nil, &all)
	return all, err
}

// Subscriber reads one subscriber.
func (c *Client) Subscriber(ctx context.Context, id string) (Subscriber, error) {
	return c.subscriber(ctx, "read subscriber", http.MethodGet, c.path(id), nil)
}

// CreateSubscriber creates a subscriber. The platform does not keep a second
// one of the same name from being created.
func (c *Client) CreateSubscriber(ctx context.Context, spec SubscriberSpec) (Subscriber, error) {
	return c.subscriber(ctx, "create subscriber", http.MethodPost, c.path(), spec.wire())
}

// UpdateSubscriber changes what is not empty in spec.
func (c *Client) UpdateSubscriber(ctx context.Context, id string, spec SubscriberSpec) (Subscriber, error) {
	return c.subscriber(ctx, "update subscriber", http.MethodPatch, c.path(id), spec.wire())
}

// Subscriptions lists the subscriptions of a subscriber, at most 20. Whether
// revoked ones are among them is not documented.
func (c *Client) Subscriptions(ctx context.Context, subscriberID string) ([]Subscription, error) {
	var all []Subscription
	err := c.call(ctx, "list subscriptions", http.MethodGet, c.path(subscriberID, "subscriptions"), nil, &all)
	return all, err
}

// Subscription reads one subscription.
func (c *Client) Subscription(ctx context.Context, subscriberID, id string) (Subscription, error) {
	return c.subscription(ctx, "read subscription", http.MethodGet, c.path(subscriberID, "subscriptions", id), nil)
}

// CreateSubscription creates a subscription, which takes effect some minutes
// later. The platform does not keep a second one with the same URL from being
// created.
func (c *Client) CreateSubscription(ctx context.Context, subscriberID string, spec SubscriptionSpec) (Subscription, error) {
	wire := wireSubscription{
		Source: "pim", Subject: c.pimURL, Type: TypeHTTPS,
		Events: spec.Events, Config: spec.Destination.wire(), SendProductIdentifier: &spec.SendProductIdentifier,
	}
	if spec.Filter != "" {
		wire.Filter = &spec.Filter
	}
	return c.subscription(ctx, "create subscription", http.MethodPost, c.path(subscriberID, "subscriptions"), wire,
		spec.Destination.Primary, spec.Destination.Secondary)
}

// UpdateSubscription changes a subscription; the change takes effect some
// minutes later.
func (c *Client) UpdateSubscription(ctx context.Context, subscriberID, id string, change SubscriptionChange) (Subscription, error) {
	var secrets []sdk.Secret
	if d := change.Destination; d != nil {
		secrets = []sdk.Secret{d.Primary, d.Secondary}
	}
	return c.subscription(ctx, "update subscription", http.MethodPatch, c.path(subscriberID, "subscriptions", id),
		change.wire(), secrets...)
}

// DeleteSubscription deletes a subscription for good.
func (c *Client) DeleteSubscription(ctx context.Context, subscriberID, id string) error {
	return c.call(ctx, "delete subscription", http.MethodDelete, c.path(subscriberID, "subscriptions", id), nil, nil)
}

// SuspendSubscription asks for a subscription to be suspended. The platform
// carries it out later: read the subscription to see its status.
func (c *Client) SuspendSubscription(ctx context.Context, subscriberID, id string) error {
	return c.call(ctx, "suspend subscription", http.MethodPost, c.path(subscriberID, "subscriptions", id, "suspend"), nil, nil)
}

// ResumeSubscription asks for a suspended subscription to be resumed. The
// platform carries it out later: read the subscription to see its status.
func (c *Client) ResumeSubscription(ctx context.Context, subscriberID, id string) error {
	return c.call(ctx, "resume subscription", http.MethodPost, c.path(subscriberID, "subscriptions", id, "resume"), nil, nil)
}

// path is the URL of something at or below the subscribers.
func (c *Client) path(segments ...string) string {
	path := c.platform + "/subscribers"
	for _, segment := range segments {
		path += "/" + url.PathEscape(segment)
	}
	return path
}

// subscriber is a call that is answered with a subscriber.
func (c *Client) subscriber(ctx context.Context, operation, method, url string, in any) (one Subscriber, err error) {
	err = c.call(ctx, operation, method, url, in, &one)
	return one, needID(operation, one.ID, err)
}

// subscription is a call that is answered with a subscription.
func (c *Client) subscription(
	ctx context.Context, operation, method, url string, in any, secrets ...sdk.Secret,
) (one Subscription, err error) {
	err = c.call(ctx, operation, method, url, in, &one, secrets...)
	return one, needID(operation, one.ID, err)
}

// call sends in, if it is not nil, and reads the answer into out, if that is
// not nil. It asks for a new token if the platform refuses the one there is;
// a refused call was not carried out, so that sending it again is harmless.
func (c *Client) call(ctx context.Context, operation, method, url string, in, out any, secrets ...sdk.Secret) error {
	var body []byte
	if in != nil {
		var err error
		if body, err = json.Marshal(in); err != nil {
			return fmt.Errorf("%s: %w", operation, err)
		}
	}
	answer, token, err := c.authorized(ctx, operation, method, url, body, secrets)
	var refused *APIError
	if errors.As(err, &refused) && refused.Unauthorized() && refused.Operation == operation && c.tokens.reject(ctx, token) {
		answer, _, err = c.authorized(ctx, operation, method, url, body, secrets)
	}
	if err != nil || out == nil {
		return err
	}
	if err := json.Unmarshal(answer, out); err != nil {
		return fmt.Errorf("%s: the answer is not what the platform documents: %w", operation, err)
	}
	return nil
}

// authorized sends one call with a token and returns the token beside the
// answer.
func (c *Client) authorized(
	ctx context.Context, operation, method, url string, body []byte, secrets []sdk.Secret,
) ([]byte, sdk.Secret, error) {
	token, err := c.tokens.get(ctx)
	if err != nil {
		return nil, "", fmt.Errorf("%s: %w", operation, err)
	}
	r := request{
		operation: operation,
		method:    method,
		url:       url,
		body:      body,
		header:    http.Header{},
		secrets:   append([]sdk.Secret{token, c.pim.ClientSecret, c.pim.Password}, secrets...),
	}
	r.header.Set("X-PIM-URL", c.pimURL)
	r.header.Set("X-PIM-TOKEN", string(token))
	r.header.Set("X-PIM-CLIENT-ID", c.pim.ClientID)
	exchange := send
	if method == http.MethodGet {
		exchange = repeat
	}
	answer, err := exchange(ctx, c.http, r)
	return answer, token, err
}

// needID turns a success without an id into an error: which object it is about
// is then not known, and one that was created has to be looked for.
func needID(operation, id string, err error) error {
	if err == nil && id == "" {
		return fmt.Errorf("%s: the answer names no id", operation)
	}
	return err
}
