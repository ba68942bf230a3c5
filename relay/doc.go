// Package relay is the daemon as a library: a configuration, New and Run.
// Everything that has to meet meets here: the door is given an acceptor that
// verifies and stores, the journal's cursors are given to lanes, the lanes to
// forwarders. What each part does stands in its own package.
package relay
