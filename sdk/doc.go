// Package sdk is the contract between pimrelay and its forwarders: what an
// event is, what a forwarder does with it, and what it may answer.
//
// A forwarder implements [Forwarder]. The relay calls it from a lane, in
// process for the built-in forwarders; how events are matched, limited,
// retried, ordered and kept is the lane's business and never the forwarder's.
//
// The package imports nothing outside the standard library.
package sdk
