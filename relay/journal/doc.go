// Package journal is the durable log between the door and the lanes: events
// are appended before they are acknowledged, and every forwarder reads them
// from a place of its own.
//
// # What is guaranteed
//
// When [Journal.Append] returns without an error the event is on disk: it
// survives a crash of the process, of the operating system and a power cut, as
// far as the disk keeps its word about fsync. The store is one SQLite database
// in WAL mode with synchronous=FULL: each commit ends with an fsync of the
// write-ahead log. One goroutine writes; it commits whatever is queued in one
// transaction, so concurrent appends share an fsync.
//
// An append that is still queued when its context ends is withdrawn and leaves
// no trace. One that the writer has already taken is either stored or not, and
// the caller whose context ends is told only that nothing is promised; the
// sender's retry is then a duplicate.
//
// An event whose (source, id) the journal remembers is a duplicate: it is not
// stored again, and its Append returns once the first one is on disk.
//
// After a commit that failed, the database is closed and opened again before
// anything else is written, because what the operating system still holds in
// its cache after a failed fsync is not to be trusted.
//
// Each row carries a checksum that is verified when the row is read.
//
// # Places
//
// A [Cursor] is one forwarder's place. It holds a watermark, below which
// everything is settled, and what is settled above it; both are written once a
// second, or after 1,000 settlements. A crash therefore repeats at most what
// was settled since: delivery is at least once. A delayed retry and a dead
// letter are rows of their own and free their place in the window of 10,000
// events above the watermark.
//
// The package leaves to others what an event means, whether it matches, and
// when to try again (package dispatch).
package journal
