// Package forwarderv1 is the generated code of forwarder.proto, version 1 of
// the contract between the relay and a forwarder's process. Package wire turns
// its messages into the types of sdk and back; nobody else needs it, but for
// who wants to speak the contract by hand.
package forwarderv1

//go:generate go run ../internal/generate forwarder.proto .
