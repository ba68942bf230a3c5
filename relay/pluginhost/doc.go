// Package pluginhost runs forwarders in processes of their own: it starts them,
// watches them, starts them again when they end or hang, and ends them when
// what they have in hand is finished. A [Plugin] is such a forwarder, and looks
// to a lane like any other but for telling apart what the plugin itself and what
// its destination did.
//
// A process is started with mutual TLS on a Unix socket in a directory that only
// this user can enter, with an environment of its own, in a process group of its
// own. It ends with the relay, whatever becomes of the relay. A forwarder may
// also be a service that somebody else runs, behind a Unix socket.
//
// The messages are package wire's business; what becomes of the events that a
// plugin had in hand when it ended is the lane's.
package pluginhost
