package journal

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"net/url"
	"path/filepath"
	"strings"

	_ "modernc.org/sqlite" // the driver "sqlite", pure Go
)

// store is one opening of the database: the connection that writes, with its
// statements, and the connections that read. It is replaced as a whole after a
// failed commit.
type store struct {
	writeDB *sql.DB
	write   *sql.Conn // used by the writer goroutine only
	read    *sql.DB

	begin, commit, rollback            *sql.Stmt
	insertID, insertEvent              *sql.Stmt
	updateCursor                       *sql.Stmt
	upsertRetry, deleteRetry           *sql.Stmt
	insertParked, deleteParked         *sql.Stmt
	insertRequeue, deleteRequeue       *sql.Stmt
	insertDead, updateDead, deleteDead *sql.Stmt

	// On read.
	selectAfter, selectOne         *sql.Stmt
	selectRequeued, selectReceived *sql.Stmt

	statements []*sql.Stmt
}

const eventColumns = "seq, source, id, type, subject, time, received, entity, extra, body, total, checksum"

// dsn carries the settings that make up the guarantee of the package. The page
// caches are small because the operating system has one, too.
func dsn(path string, pragmas ...string) string {
	query := url.Values{"_pragma": pragmas, "_txlock": {"immediate"}}
	return "file:" + (&url.URL{Path: path}).EscapedPath() + "?" + query.Encode()
}

func openStore(ctx context.Context, path string) (_ *store, err error) {
	s := &store{}
	defer func() {
		if err != nil {
			err = errors.Join(err, s.close())
		}
	}()
	s.writeDB, err = sql.Open("sqlite", dsn(path, "busy_timeout(5000)", "auto_vacuum(2)", "journal_mode(WAL)",
		"synchronous(FULL)", "wal_autocheckpoint(2000)", "journal_size_limit(67108864)", "cache_size(-4096)", "temp_store(MEMORY)"))
	if err != nil {
		return s, err
	}
	s.writeDB.SetMaxOpenConns(1)
	if s.write, err = s.writeDB.Conn(ctx); err != nil {
		return s, err
	}
	var mode string
	if err := s.write.QueryRowContext(ctx, "PRAGMA journal_mode").Scan(&mode); err != nil {
		return s, err
	}
	if !strings.EqualFold(mode, "wal") {
		return s, fmt.Errorf("journal mode is %q and must be wal: is data_dir on a network file system?", mode)
	}
	start, err := readSequence(filepath.Dir(path))
	if err != nil {
		return s, err
	}
	if err := migrate(ctx, s.write, start); err != nil {
		return s, err
	}
	if err := s.inspect(ctx); err != nil {
		return s, err
	}
	s.read, err = sql.Open("sqlite", dsn(path, "busy_timeout(5000)", "query_only(1)", "cache_size(-1024)", "temp_store(MEMORY)"))
	if err != nil {
		return s, err
	}
	s.read.SetMaxOpenConns(4)
	s.read.SetMaxIdleConns(4)
	return s, s.prepare(ctx)
}

func (s *store) prepare(ctx context.Context) error {
	writing := []struct {
		to  **sql.Stmt
		sql string
	}{
		{&s.begin, "BEGIN IMMEDIATE"},
		{&s.commit, "COMMIT"},
		{&s.rollback, "ROLLBACK"},
		{&s.insertID, "INSERT INTO ids (seq, hash, seen) VALUES (?, ?, ?) ON CONFLICT (hash) DO NOTHING"},
		{&s.insertEvent, "INSERT INTO events (" + eventColumns + ") VALUES (?,?,?,?,?,?,?,?,?,?,?,?)"},
		{&s.updateCursor, "UPDATE cursors SET watermark=?, settled=?, updated=? WHERE id=?"},
		{&s.upsertRetry, "INSERT INTO retries (cursor, seq, key, attempts, first, due, outage, replayed, size, reason) VALUES (?,?,?,?,?,?,?,?,?,?) " +
			"ON CONFLICT (cursor, seq) DO UPDATE SET key=excluded.key, attempts=excluded.attempts, first=excluded.first, due=excluded.due, outage=excluded.outage, reason=excluded.reason"},
		{&s.deleteRetry, "DELETE FROM retries WHERE cursor=? AND seq=?"},
		{&s.insertParked, "INSERT INTO parked (cursor, seq, key, size) VALUES (?,?,?,?) ON CONFLICT (cursor, seq) DO UPDATE SET key=excluded.key"},
		{&s.deleteParked, "DELETE FROM parked WHERE cursor=? AND seq=?"},
		{&s.insertRequeue, "INSERT INTO requeued (cursor, seq, replayed, size) SELECT ?1, ?2, ?3, ?4 " +
			"WHERE NOT EXISTS (SELECT 1 FROM retries WHERE cursor=?1 AND seq=?2) AND NOT EXISTS (SELECT 1 FROM parked WHERE cursor=?1 AND seq=?2) " +
			"ON CONFLICT (cursor, seq) DO NOTHING"},
		{&s.deleteRequeue, "DELETE FROM requeued WHERE cursor=? AND seq=?"},
		{&s.insertDead, "INSERT INTO dead_letters (cursor, source, seq, id, type, reason, answer, attempts, first, last, size, body) VALUES (?,?,?,?,?,?,?,?,?,?,?,?) " +
			"ON CONFLICT (cursor, seq) WHERE seq > 0 DO NOTHING"},
		{&s.deleteDead, "DELETE FROM dead_letters WHERE number=?"},
		{&s.updateDead, "UPDATE dead_letters SET reason=?, answer=?, attempts=?, last=? WHERE cursor=? AND seq=?"},
	}
	for _, p := range writing {
		stmt, err := s.write.PrepareContext(ctx, p.sql)
		if err != nil {
			return fmt.Errorf("prepare %q: %w", p.sql, err)
		}
		*p.to, s.statements = stmt, append(s.statements, stmt)
	}
	reading := []struct {
		to  **sql.Stmt
		sql string
	}{
		{&s.selectAfter, "SELECT " + eventColumns + " FROM events WHERE seq > ? ORDER BY seq LIMIT ?"},
		{&s.selectOne, "SELECT " + eventColumns + " FROM events WHERE seq = ?"},
		{&s.selectReceived, "SELECT seq, received FROM events WHERE seq >= ? ORDER BY seq LIMIT 1"},
		{&s.selectRequeued, "SELECT seq, replayed, size FROM requeued WHERE cursor = ? AND seq > ? ORDER BY seq"},
	}
	for _, p := range reading {
		stmt, err := s.read.PrepareContext(ctx, p.sql)
		if err != nil {
			return fmt.Errorf("prepare %q: %w", p.sql, err)
		}
		*p.to, s.statements = stmt, append(s.statements, stmt)
	}
	return nil
}

// close releases everything; what it returns is of interest only where nothing
// went wrong before.
func (s *store) close() error {
	var errs []error
	for _, stmt := range s.statements {
		errs = append(errs, stmt.Close())
	}
	if s.read != nil {
		errs = append(errs, s.read.Close())
	}
	if s.write != nil {
		errs = append(errs, s.write.Close())
	}
	if s.writeDB != nil {
		errs = append(errs, s.writeDB.Close())
	}
	return errors.Join(errs...)
}
