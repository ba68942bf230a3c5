package journal

import (
	"context"
	"database/sql"
	"fmt"
)

// applicationID marks the file as a pimrelay journal ("PIMR" in ASCII).
const applicationID = 0x50494d52

// schemaVersion is kept in the file's user_version. Version N+1 of the program
// reads and upgrades version N of the file; never the other way round.
const schemaVersion = 1

// Times are microseconds since 1970 in UTC, 0 for none.
const schema = `
CREATE TABLE events (
  seq      INTEGER PRIMARY KEY AUTOINCREMENT, -- a number is never used twice: cursors depend on it
  source   TEXT NOT NULL,
  id       TEXT NOT NULL,
  type     TEXT NOT NULL,
  subject  TEXT NOT NULL,
  time     INTEGER NOT NULL,
  received INTEGER NOT NULL,
  entity   TEXT NOT NULL,
  extra    BLOB NOT NULL,                     -- the other attributes and headers, JSON
  body     BLOB NOT NULL,
  total    INTEGER NOT NULL,                  -- the sizes of all events up to this one
  checksum INTEGER NOT NULL                   -- CRC-32C of the columns above but seq and total
);

-- What has been seen, kept longer than the events themselves. The rows stand
-- in the order of their arrival, so forgetting the oldest is a range delete.
CREATE TABLE ids (
  seq  INTEGER PRIMARY KEY,
  hash BLOB NOT NULL,
  seen INTEGER NOT NULL
);
CREATE UNIQUE INDEX ids_hash ON ids (hash);

-- A forwarder's place. The other tables refer to it by id, so that a renamed
-- forwarder keeps everything.
CREATE TABLE cursors (
  id        INTEGER PRIMARY KEY AUTOINCREMENT,
  forwarder TEXT NOT NULL UNIQUE,
  watermark INTEGER NOT NULL,
  settled   BLOB NOT NULL,                    -- bit i: watermark+1+i is settled
  updated   INTEGER NOT NULL,
  gone      INTEGER NOT NULL DEFAULT 0,       -- since when the configuration does not name it, 0 if it does
  until     INTEGER NOT NULL DEFAULT 0,       -- the last number when it went
  forgotten INTEGER NOT NULL DEFAULT 0        -- 1: it has no place any more, only dead letters
);

-- Events of a forwarder that are settled for its window and wait outside it:
-- for the time of the next attempt, for an earlier event with the same key, or
-- because they are wanted again. An event is in at most one of the three.
CREATE TABLE retries (
  cursor   INTEGER NOT NULL,
  seq      INTEGER NOT NULL,
  key      TEXT NOT NULL,
  attempts INTEGER NOT NULL,
  first    INTEGER NOT NULL,
  due      INTEGER NOT NULL,
  outage   INTEGER NOT NULL,                  -- microseconds that do not count towards giving up
  replayed INTEGER NOT NULL,
  size     INTEGER NOT NULL,
  reason   TEXT NOT NULL,
  PRIMARY KEY (cursor, seq)
) WITHOUT ROWID;
CREATE INDEX retries_seq ON retries (seq);

CREATE TABLE parked (
  cursor INTEGER NOT NULL,
  seq    INTEGER NOT NULL,
  key    TEXT NOT NULL,
  size   INTEGER NOT NULL,
  PRIMARY KEY (cursor, seq)
) WITHOUT ROWID;
CREATE INDEX parked_seq ON parked (seq);

CREATE TABLE requeued (
  cursor   INTEGER NOT NULL,
  seq      INTEGER NOT NULL,
  replayed INTEGER NOT NULL,                  -- 1: a person wanted it
  size     INTEGER NOT NULL,
  PRIMARY KEY (cursor, seq)
) WITHOUT ROWID;
CREATE INDEX requeued_seq ON requeued (seq);

CREATE TABLE dead_letters (
  number    INTEGER PRIMARY KEY AUTOINCREMENT,
  cursor    INTEGER NOT NULL,                 -- 0: the source's own, the body could not be read
  source    TEXT NOT NULL,
  seq       INTEGER NOT NULL,                 -- the event; 0 where the body is kept here
  id        TEXT NOT NULL,
  type      TEXT NOT NULL,
  reason    TEXT NOT NULL,
  answer    TEXT NOT NULL,
  attempts  INTEGER NOT NULL,
  first     INTEGER NOT NULL,
  last      INTEGER NOT NULL,
  size      INTEGER NOT NULL,                 -- of the event that it keeps
  body      BLOB
);
CREATE INDEX dead_letters_cursor ON dead_letters (cursor, number);
CREATE INDEX dead_letters_seq ON dead_letters (seq) WHERE seq > 0;
CREATE UNIQUE INDEX dead_letters_event ON dead_letters (cursor, seq) WHERE seq > 0;
`

// migrate makes an empty file a journal, whose numbers start above start, and
// refuses what it cannot read.
func migrate(ctx context.Context, conn *sql.Conn, start int64) error {
	var app, version int
	if err := conn.QueryRowContext(ctx, "PRAGMA application_id").Scan(&app); err != nil {
		return err
	}
	if err := conn.QueryRowContext(ctx, "PRAGMA user_version").Scan(&version); err != nil {
		return err
	}
	switch {
	case app == 0 && version == 0:
		create := fmt.Sprintf("BEGIN IMMEDIATE;%s;INSERT INTO sqlite_sequence (name, seq) VALUES ('events', %d);PRAGMA application_id=%d;PRAGMA user_version=%d;COMMIT",
			schema, start, applicationID, schemaVersion)
		_, err := conn.ExecContext(ctx, create)
		return err
	case app != applicationID:
		return fmt.Errorf("the file is no pimrelay journal (application id %#x)", app)
	case version > schemaVersion:
		return fmt.Errorf("the journal has format %d and this pimrelay reads up to %d: use the newer pimrelay that wrote it", version, schemaVersion)
	}
	return nil
}
