// Package simulator is the Akeneo Event Platform, and as much of a PIM as it
// needs, in one process: for demonstrations, for development and for tests.
//
// A [Simulator] is an [http.Handler] that serves the PIM's token routes and the
// platform's Management API at one address, and it delivers signed events to
// the subscriptions made there while [Simulator.Run] runs. It is an oracle too:
// [Simulator.Report] says what it sent, what was acknowledged, what it gave up
// and why it suspended a subscription.
//
// The package imports nothing else of this module. It signs, paces and
// validates with code of its own, so that the relay and the simulator cannot
// share a mistake.
//
// # Time
//
// The platform's clock runs [Options].Speed times as fast as the wall clock:
// token lives, retry pauses, the rolling hour of the success rate, the
// activation delay and every time stamp follow it. Two things stay on the wall
// clock because the destination under test does: the 5 s within which it must
// answer, and the pace in events a second.
//
// # What is documented
//
// Routes, statuses and error bodies of the Management API; redaction; limits of
// 20 subscribers and 20 subscriptions each; secrets of 16 to 256 characters;
// rules for custom headers; the HMAC-SHA256 signatures; 200 within 5 s; a pace
// between 1 and 100 events a second that a 200 raises and a 429 lowers;
// retries 5, 10 and 20 minutes after the previous attempt; suspension at once
// by a 404 or a 3xx, and by a success rate below 90 % over a rolling hour.
//
// # Choices where the platform's behaviour is not known
//
// The harsher reading is the default; where a test may want the other one, a
// field of [Readings] selects it.
//
//   - Only 200 acknowledges an event; another 2xx is a failure
//     ([Readings].Any2xx).
//   - Every failed attempt is retried, a plain 400 or 401 too.
//   - A 429 uses up one of the three retries ([Readings].ThrottleKeepsRetries).
//     It lowers the success rate only when the event is older than one hour.
//   - The success rate counts attempts, not events, from 10 attempts on
//     ([Readings].MinSample), and starts afresh when a subscription is resumed.
//   - The pace starts at 10 events a second, a 200 adds 1, a 429 halves it. A
//     subscription's very first request goes alone, so that an HTTP/2
//     connection is made once and shared.
//   - Suspending loses what is queued or waits for a retry; requests under way
//     are finished, and a 200 to one of them still counts. What fires during a
//     suspension is counted as missed.
//   - What fires before a subscription or a change of it has taken effect is
//     not sent, or is sent by the old settings. Suspending, resuming and
//     deleting take effect at once.
//   - X-Correlation-ID differs from attempt to attempt; id, time and body do
//     not. One event carries one id in every subscription that receives it.
//   - PATCH replaces `config` as a whole, so an incomplete one is refused
//     ([Readings].PatchMerges).
//   - A refused payload is a 400 ([Readings].ValidationStatus). Refused are:
//     event types that are not in the catalogue or stand twice, null for a
//     secret (an empty secondary secret counts as none), a `subject` that is
//     not the caller's PIM, destinations of any type but https, URLs with
//     credentials or a fragment, and a content type other than
//     application/json.
//   - An empty list is [] ([Readings].NullLists).
//   - Deleted subscribers and subscriptions are 404. Suspending what is not
//     active, resuming what is not suspended, and the 21st object are 409.
//   - The X-PIM-URL must be the address at which the caller reaches the
//     simulator, or [Options].PIMURL.
//   - The bodies of token-info, the fields of logs that are not documented and
//     the names of most log operations are inventions.
//
// # What it leaves out
//
// A filter is kept and its length checked, but not evaluated: every event of
// the subscribed types passes. Notification webhooks and mails are not sent,
// what a suspension misses cannot be replayed, and there is one connection, one
// PIM and no product behind it: events are fired by hand ([Simulator.Fire], or
// POST /simulator/events).
package simulator
