package akeneo

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"hash"
	"net/http"
	"slices"
	"strings"
	"sync"

	"github.com/pimrelay/pimrelay/sdk"
)

// The headers of a signed delivery, in the canonical form of net/http.
const (
	headerPrimary   = "X-Akeneo-Signature-Primary"
	headerSecondary = "X-Akeneo-Signature-Secondary"
	headerAlgorithm = "X-Akeneo-Signature-Algorithm"
	signaturePrefix = "X-Akeneo-Signature-"
)

// signatureAlgorithm is the only value of the algorithm header that verifies.
const signatureAlgorithm = "HmacSHA256"

// Signed reports whether a request claims to come from the platform: whether
// it has any header whose name begins with X-AKENEO-SIGNATURE-, whatever its
// value. It says nothing about the signature being right.
func Signed(h http.Header) bool {
	for name := range h {
		if len(name) >= len(signaturePrefix) && strings.EqualFold(name[:len(signaturePrefix)], signaturePrefix) {
			return true
		}
	}
	return false
}

// Signature is the primary signature that a request carries, right or wrong; empty
// if it does not carry one. It covers the body alone, so all attempts to deliver
// an event have the same one, as long as the secret stays.
func Signature(h http.Header) string { return h.Get(headerPrimary) }

// signingKey computes the signature under one secret: HMAC-SHA256 with the
// secret's UTF-8 bytes as the key. It is safe for concurrent use.
type signingKey struct {
	secret sdk.Secret
	hashes sync.Pool // of hash.Hash, keyed; setting a key up costs as much as hashing 128 bytes
}

// signingKeys turns secrets into keys, in their order, without repetitions and
// without empty ones: an empty secret never verifies anything.
func signingKeys(secrets []sdk.Secret) []*signingKey {
	keys := make([]*signingKey, 0, len(secrets))
	for _, secret := range secrets {
		known := slices.ContainsFunc(keys, func(k *signingKey) bool { return k.secret == secret })
		if secret == "" || known {
			continue
		}
		key := &signingKey{secret: secret}
		key.hashes.New = func() any { return hmac.New(sha256.New, []byte(secret)) }
		keys = append(keys, key)
	}
	return keys
}

// sum is the signature of body.
func (k *signingKey) sum(body []byte) (sum [sha256.Size]byte) {
	h := k.hashes.Get().(hash.Hash)
	defer k.hashes.Put(h)
	h.Reset()
	h.Write(body)
	h.Sum(sum[:0])
	return sum
}

// verified reports whether one of the delivery's signatures fits the raw body
// under one of the keys.
//
// The primary and the secondary header are each tried against every key,
// because during a rotation the two sides disagree for some minutes on which
// secret is which. Hexadecimal digits count in either case, and sums are
// compared in constant time; how long the call takes may tell which key
// fitted, and nothing about the keys. A header that is sent twice, an algorithm
// other than HmacSHA256 and a value that is no SHA-256 sum never verify. A
// missing algorithm header is tolerated: HMAC-SHA256 is computed in any case,
// so leaving it out gains nothing.
func verified(h http.Header, body []byte, keys []*signingKey) bool {
	algorithm := h[headerAlgorithm]
	if len(algorithm) > 1 || len(algorithm) == 1 && !strings.EqualFold(algorithm[0], signatureAlgorithm) {
		return false
	}
	var room [2][sha256.Size]byte
	sums := room[:0]
	for _, name := range [...]string{headerPrimary, headerSecondary} {
		values := h[name]
		if len(values) > 1 {
			return false
		}
		if len(values) == 1 {
			sums = appendSum(sums, values[0])
		}
	}
	if len(sums) == 0 {
		return false
	}
	for _, key := range keys {
		want := key.sum(body)
		for i := range sums {
			if hmac.Equal(sums[i][:], want[:]) {
				return true
			}
		}
	}
	return false
}

// appendSum appends the SHA-256 sum that a header value spells, or nothing if
// it spells none.
func appendSum(sums [][sha256.Size]byte, value string) [][sha256.Size]byte {
	if len(value) != hex.EncodedLen(sha256.Size) {
		return sums
	}
	var sum [sha256.Size]byte
	if _, err := hex.Decode(sum[:], []byte(value)); err != nil {
		return sums
	}
	return append(sums, sum)
}
