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
  checksum INTEGER NOT NULL                   -- CRC-32C of all the columns above
);

-- What has been seen, kept longer than the events themselves. The rows stand
-- in the order of their arrival, so forgetting the oldest is a range delete.
CREATE TABLE ids (
  seq  INTEGER PRIMARY KEY,
  hash BLOB NOT NULL,
  seen INTEGER NOT NULL
);
CREATE UNIQUE INDEX ids_hash ON ids (hash);

CREATE TABLE cursors (
  forwarder TEXT PRIMARY KEY,
  watermark INTEGER NOT NULL,
  settled   BLOB NOT NULL,                    -- bit i: watermark+1+i is settled
  updated   INTEGER NOT NULL
) WITHOUT ROWID;

CREATE TABLE retries (
  forwarder TEXT NOT NULL,
  seq       INTEGER NOT NULL,
  attempts  INTEGER NOT NULL,
  first     INTEGER NOT NULL,
  due       INTEGER NOT NULL,
  reason    TEXT NOT NULL,
  PRIMARY KEY (forwarder, seq)
) WITHOUT ROWID;

CREATE TABLE dead_letters (
  number    INTEGER PRIMARY KEY AUTOINCREMENT,
  forwarder TEXT NOT NULL,                    -- empty: the source's own, the body could not be read
  source    TEXT NOT NULL,
  seq       INTEGER NOT NULL,                 -- the event; 0 where the body is kept here
  id        TEXT NOT NULL,
  type      TEXT NOT NULL,
  reason    TEXT NOT NULL,
  answer    TEXT NOT NULL,
  attempts  INTEGER NOT NULL,
  first     INTEGER NOT NULL,
  last      INTEGER NOT NULL,
  body      BLOB
);
CREATE INDEX dead_letters_forwarder ON dead_letters (forwarder, number);
CREATE UNIQUE INDEX dead_letters_event ON dead_letters (forwarder, seq) WHERE seq > 0;
`

// migrate makes an empty file a journal, and refuses what it cannot read.
func migrate(ctx context.Context, conn *sql.Conn) error {
	var app, version int
	if err := conn.QueryRowContext(ctx, "PRAGMA application_id").Scan(&app); err != nil {
		return err
	}
	if err := conn.QueryRowContext(ctx, "PRAGMA user_version").Scan(&version); err != nil {
		return err
	}
	switch {
	case app == 0 && version == 0:
		create := fmt.Sprintf("BEGIN IMMEDIATE;%s;PRAGMA application_id=%d;PRAGMA user_version=%d;COMMIT", schema, applicationID, schemaVersion)
		_, err := conn.ExecContext(ctx, create)
		return err
	case app != applicationID:
		return fmt.Errorf("the file is no pimrelay journal (application id %#x)", app)
	case version > schemaVersion:
		return fmt.Errorf("the journal has format %d and this pimrelay reads up to %d: use the newer pimrelay that wrote it", version, schemaVersion)
	}
	return nil
}
