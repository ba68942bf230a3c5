// Package observe is what the daemon shows of itself to machines: its log, its
// metrics, and its health with the probes for them.
//
// What is logged, counted or warned about is decided where it happens; this
// package imports no other package of this module.
package observe
