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
// Each row carries a checksum that is verified when the row is read. Numbers
// are given once and never again (AUTOINCREMENT), because places depend on them.
//
// # Places
//
// A [Cursor] is one forwarder's place. It holds a watermark, below which
// everything is settled, and what is settled above it, at most 10,000 events;
// both are written once a second, or after 1,000 settlements. A crash therefore
// repeats what was settled since, and what is settled while that write is on its
// way: about twice 1,000 events at the most. Delivery is at least once.
//
// An event that needs no second attempt costs no row of its own. Rows are, and
// free their place in the window: delayed retries, at most 10,000 before the
// cursor hands out nothing new; events parked behind an earlier one with their
// key, at most 100,000; events that a person wants again; dead letters. The
// bodies stay with the events.
//
// # Limits
//
// A keeper goroutine looks after the limits once a second while something is
// written. It works in steps of about 5 ms that the writer runs between
// appends. An event is deleted at the limits of age and size, and never while a
// forwarder has not settled it, or while it waits for a retry, is parked, is
// wanted again or stands in dead letters. Sizes are those of the pages in use,
// not of the file, which is made smaller bit by bit when much of it is free.
//
// Each forwarder's backlog has limits of its own, so that one dead destination
// does not fill the disk for the others: beyond them its oldest events become
// its dead letters, or, if it asks for that, the journal refuses new events.
// Dead letters have limits, too; the oldest expire, which is logged as an error.
// When all that is left is needed and the size limit is reached, or the disk is
// full, [Journal.Append] returns [ErrFull]. A reserve file of 64 MiB is given up
// on a full disk, so that settlements can still be written.
//
// # Damage
//
// An event whose content has changed on disk is handed out as damaged, and
// becomes a dead letter; nothing else happens. A database that SQLite cannot
// read is another matter. Open looks at the schema and at the ends of every
// table. If it finds damage, it renames the database with its log to
// journal.db.damaged-<time> and begins a fresh one at once, with the forwarders
// at its beginning and with numbers above all that were given before: the file
// "sequence" reserves them, 1,000,000 at a time, before an event is
// acknowledged. A file of another program or of a newer format is an error and
// stays where it is.
//
// Damage that only shows at work does not stop the journal: what touches it
// fails, the door's answer to an append included, and everything else goes on.
// [Journal.Damage] says so, the file "journal.damage" notes it, and the next
// Open sets the database aside. The forwarders' places in memory belong to the
// database, so this is not done without a restart.
//
// When the forwarders are known ([Journal.Keep]), what can be read of the
// damaged file comes back in the background, in steps that the writer runs
// between appends: ids first, then events under their old numbers, what waits,
// and dead letters. How far it came is written with each step, so a restart goes
// on there. An event is due again for exactly the forwarders that had not
// settled it, beside the new events and without an order among the two; for a
// forwarder whose place is lost, all of them are. Retries become due at once and
// lose their count of attempts. Of an event that cannot be read but whose id can,
// a damaged dead letter remains. If rows of retries or of parked events are lost,
// and their index with them, those events are not delivered again: replay them.
// What arrives again before its id has come back is stored as new. Nothing is
// deleted meanwhile; at the end the file is kept, with .salvaged added to its
// name. [Check] and [Repair] do the same without a relay.
//
// # Settings
//
// Checkpoints run in the writer after 2,000 pages of the log (8 MiB). Readers
// never keep a transaction open between batches, so the log is reset, and they
// neither wait for the writer nor stop it. The page caches take 4 MiB for
// writing and 1 MiB for each of at most four readers.
//
// The driver is modernc.org/sqlite. Beside github.com/ncruces/go-sqlite3, in
// alternating runs on two busy cores, the two were equal within the noise: 64
// writers of 1 KiB 21,000 to 27,000 events/s against 25,000; beside 5 million
// remembered ids 13,400 against 14,300; a lane that catches up 130,000 to 170,000
// with either. modernc makes a smaller binary.
//
// The package leaves to others what an event means, whether it matches, and
// when to try again (package dispatch).
package journal
