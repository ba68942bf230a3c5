// Package sdk is the contract between pimrelay and its forwarders: what an
// event is, what a forwarder does with it, and what it may answer.
//
// A forwarder implements [Forwarder]. The relay calls it from a lane: a built-in
// one in process, anybody else's in a process of its own, whose whole main
// function is
//
//	serve.Main(func(logger *slog.Logger) sdk.Forwarder { return &forwarder{logger: logger} })
//
// with package sdk/serve. The contract is the same on both roads. What a
// forwarder is asked, and by whom:
//
//   - Describe, if it is a [Describer], at any time: by `pimrelay plugin list`,
//     and before and after each Configure.
//   - Configure, once and first: by the relay at its start and at a reload, and by
//     `pimrelay check`, which calls nothing but Close after it.
//   - Deliver, any number of times and concurrently: by the lane, which gives
//     each call its timeout as the context's deadline. A forwarder that has not
//     returned by then is not waited for; one in a process of its own that
//     does not answer at all counts as hanging, and its process is ended.
//   - Health, if it is a [HealthChecker]: by `pimrelay check --online`, and by
//     `pimrelay plugin verify`, for people.
//   - Close, once and last, when no Deliver is running.
//
// How events are matched, transformed, limited, retried, ordered and kept is the
// lane's business and never the forwarder's. What a forwarder owes is an honest
// outcome for each event: Delivered only when the destination has confirmed it,
// Rejected only when it never will. An event may come again after a Delivered,
// when the relay, the forwarder's process or the machine has failed meanwhile;
// [Event.IdempotencyKey] is how a destination tells.
//
// Package sdk/sdktest holds a forwarder to all that, in a test of its author's or
// by `pimrelay plugin verify`.
//
// The package imports nothing outside the standard library. Within one version
// of the contract only optional interfaces and fields are added, whose absence
// means what it meant before.
package sdk
