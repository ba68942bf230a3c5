// Package dispatch brings events from the journal to forwarders. A [Lane] is
// one forwarder's road: it reads from a cursor of its own, leaves out what does
// not match, delivers, and settles each event by the outcome. Lanes share
// nothing, so a destination that is slow, away or hostile holds up only its
// own lane.
//
// The package leaves durability to package journal, the delivery itself to the
// forwarder, and says in one place, [Lane.settle], what becomes of an event.
package dispatch
