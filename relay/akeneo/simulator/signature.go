package simulator

import (
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"time"
)

// sign is the platform's signature of a body: lower-case hex of HMAC-SHA256
// with the secret's UTF-8 bytes as key.
func sign(secret string, body []byte) string {
	mac := hmac.New(sha256.New, []byte(secret))
	mac.Write(body)
	return hex.EncodeToString(mac.Sum(nil))
}

// newID is a UUID of version 7 (RFC 9562) for an object or event born at t.
func newID(t time.Time) string {
	var b [16]byte
	rand.Read(b[6:]) // never fails: crypto/rand ends the process instead
	binary.BigEndian.PutUint64(b[:8], uint64(t.UnixMilli())<<16|uint64(b[6])<<8|uint64(b[7]))
	b[6] = b[6]&0x0f | 0x70
	b[8] = b[8]&0x3f | 0x80

	var text [36]byte
	hex.Encode(text[0:8], b[0:4])
	hex.Encode(text[9:13], b[4:6])
	hex.Encode(text[14:18], b[6:8])
	hex.Encode(text[19:23], b[8:10])
	hex.Encode(text[24:36], b[10:16])
	text[8], text[13], text[18], text[23] = '-', '-', '-', '-'
	return string(text[:])
}

// newToken is an opaque token as the PIM issues them.
func newToken() string {
	return hex.EncodeToString([]byte(rand.Text()))
}
