// Package akeneo is what the relay knows about the Akeneo Event Platform and
// the PIM behind it: how a delivery is signed, what its envelope looks like,
// which entity it is about, which event types exist, how a PIM token is
// obtained, and the calls of the Management API.
//
// It keeps no state on disk and decides no policy. Which status a delivery is
// answered with is the door's business, where an event is kept the journal's,
// and which subscriptions ought to exist package subscription's.
//
// What the platform sends is read tolerantly: unknown event types, unknown
// attributes, unknown states and additional fields are no errors.
package akeneo
