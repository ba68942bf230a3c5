package journal

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"hash/crc32"
	"time"

	"github.com/pimrelay/pimrelay/sdk"
)

// extra holds the parts of an event that nobody asks the database for.
type extra struct {
	EventSource     string            `json:"source,omitempty"`
	DataContentType string            `json:"datacontenttype,omitempty"`
	DataSchema      string            `json:"dataschema,omitempty"`
	ContentType     string            `json:"contenttype,omitempty"`
	Headers         map[string]string `json:"headers,omitempty"`
}

// row is an event as the table events holds it.
type row struct {
	seq                               int64
	source, id, kind, subject, entity string
	time, received                    int64
	extra, body                       []byte
	total                             int64 // set when it is inserted
	checksum                          uint32
}

// DamagedError says that an event's row no longer has the content it was
// stored with.
type DamagedError struct{ Seq int64 }

func (e *DamagedError) Error() string {
	return fmt.Sprintf("event %d is damaged on disk: its checksum does not fit", e.Seq)
}

func newRow(e *sdk.Event) (*row, error) {
	x, err := json.Marshal(extra{e.EventSource, e.DataContentType, e.DataSchema, e.ContentType, e.Headers})
	if err != nil {
		return nil, fmt.Errorf("encode attributes of event %q: %w", e.ID, err)
	}
	r := &row{
		source: e.Source, id: e.ID, kind: e.Type, subject: e.Subject, entity: e.Entity,
		time: micros(e.Time), received: micros(e.Received), extra: x, body: e.Body,
	}
	r.checksum = r.sum()
	return r, nil
}

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// sum is the checksum over everything but the sequence number, which is
// assigned later and guards itself as the key, and the total.
func (r *row) sum() uint32 {
	var n [8]byte
	sum := uint32(0)
	add := func(part []byte) {
		binary.LittleEndian.PutUint64(n[:], uint64(len(part)))
		sum = crc32.Update(crc32.Update(sum, castagnoli, n[:]), castagnoli, part)
	}
	for _, s := range [...]string{r.source, r.id, r.kind, r.subject, r.entity} {
		add([]byte(s))
	}
	for _, v := range [...]int64{r.time, r.received} {
		binary.LittleEndian.PutUint64(n[:], uint64(v))
		sum = crc32.Update(sum, castagnoli, n[:])
	}
	add(r.extra)
	add(r.body)
	return sum
}

// rowBytes is about what a row takes beside its columns, with its id's.
const rowBytes = 128

// size is about what the event takes on disk.
func (r *row) size() int64 {
	return int64(rowBytes + len(r.source) + len(r.id) + len(r.kind) + len(r.subject) + len(r.entity) + len(r.extra) + len(r.body))
}

// event is the inverse of newRow. The event refers to the row's memory.
func (r *row) event() (sdk.Event, error) {
	var x extra
	if r.sum() != r.checksum || json.Unmarshal(r.extra, &x) != nil {
		return sdk.Event{ID: r.id, Type: r.kind, Source: r.source}, &DamagedError{Seq: r.seq}
	}
	return sdk.Event{
		ID: r.id, Type: r.kind, EventSource: x.EventSource, Subject: r.subject, Time: fromMicros(r.time),
		DataContentType: x.DataContentType, DataSchema: x.DataSchema,
		Source: r.source, Received: fromMicros(r.received), Entity: r.entity, Headers: x.Headers,
		Body: r.body, Payload: r.body, ContentType: x.ContentType,
	}, nil
}

func micros(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return t.UnixMicro()
}

func fromMicros(v int64) time.Time {
	if v == 0 {
		return time.Time{}
	}
	return time.UnixMicro(v).UTC()
}

// idHash is the 128-bit key under which the journal remembers an event. For an
// id that is a UUID of version 7 the first 48 bits are its time stamp, so that
// neighbours in time are neighbours in the index; the rest is SHA-256.
func idHash(source, id string) []byte {
	buf := make([]byte, 0, len(source)+1+len(id))
	buf = append(append(append(buf, source...), 0), id...)
	sum := sha256.Sum256(buf)
	key := sum[:16:16]
	if len(id) == 36 && id[8] == '-' && id[13] == '-' && id[14] == '7' {
		var stamp [6]byte
		compact := append([]byte(id[:8]), id[9:13]...)
		if _, err := hex.Decode(stamp[:], compact); err == nil {
			copy(key, stamp[:])
		}
	}
	return key
}
