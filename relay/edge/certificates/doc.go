// Package certificates keeps the certificates that the door presents: obtained
// and renewed through ACME, or read from files and read again when they change.
//
// Everything that may go wrong with them leaves the door open: a certificate
// authority that is down, a new file that is broken. What was good stays in use,
// and Status says what is wrong, long before the platform meets it: a broken TLS
// handshake counts against a subscription like any other failure.
//
// Who listens, and what is answered, is the business of package edge; it gets a
// *tls.Config from here. The package imports no other package of this module.
package certificates
