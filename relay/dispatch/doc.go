// Package dispatch brings events from the journal to forwarders. A [Lane] is
// one forwarder's road: it reads from a cursor of its own, leaves out what does
// not match, makes of the others what is to be sent, delivers, and settles each
// event by the outcome. Lanes share nothing, so a destination that is slow, away
// or hostile holds up only its own lane.
//
// # A lane at work
//
// One goroutine decides everything; another reads the journal and evaluates the
// expressions for it, and each call of the forwarder has one of its own. An
// event passes, in this order, the expressions, the line of its key (order_by),
// the pace that the destination has asked for, the breaker, and the rate.
//
// Events with the same key are delivered in order and one at a time. While one
// of them is being delivered a few others wait in memory; while it waits for a
// retry the journal keeps them, parked. A batch holds at most one event of a
// key, because nobody promises that a destination keeps the order within one.
//
// An attempt is spent by a Retry outcome alone: not by one that asks for less,
// not by a probe of an open breaker, and not by a batch that is bisected. The
// time in which a lane stands still does not count towards giving an event up.
//
// The package leaves durability to package journal, the delivery itself to the
// forwarder, and says in one place, the method settle, what becomes of an
// event.
package dispatch
