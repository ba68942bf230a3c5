package akeneo

import (
	"bytes"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"net/http"
	"strings"
	"testing"

	"github.com/pimrelay/pimrelay/sdk"
)

// The platform's signatures of knownBody under two secrets, computed outside
// this code base with Python and OpenSSL.
const (
	knownBody = `{"specversion":"1.0","id":"018e197c-dfe2-70f8-9346-1a8e016f5fbb","source":"pim",` +
		`"type":"com.akeneo.pim.v1.product.deleted","subject":"0190fe8a-6213-76ce-8a9f-ba36a5ef555a",` +
		`"datacontenttype":"application/json","dataschema":"https://event.prd.sdk.akeneo.cloud/spec/com.akeneo.pim.v1.product.deleted.schema.json",` +
		`"time":"2024-03-07T15:16:37Z","data":{"product":{"uuid":"3444ec1b-058e-4208-9b6c-284f47a7aa17"},` +
		`"author":{"identifier":"b238e9f7-fcec-45bd-9431-d43cd624b244","type":"api"}}}`
	knownBodySum     = "e3469cb22c0081195ead8878c5b6c066b0f7ee5188b244544f164d8a08f0d064"
	primarySecret    = sdk.Secret("primary-secret-0123456789")
	primarySignature = "02009bb93a497a2c758167fd6a64d1055d3063aa9bbc038656090259c1f7075f"
	secondarySecret  = sdk.Secret("secondary-secret-987654321")
	secondSignature  = "c246089840ef65786e9ab09e4c3239cfe23a578ec162c82241e75a21588bfcfd"
)

func TestKnownBodyIsTheOneThatWasSigned(t *testing.T) {
	t.Parallel()
	sum := sha256.Sum256([]byte(knownBody))
	if got := hex.EncodeToString(sum[:]); len(knownBody) != 483 || got != knownBodySum {
		t.Fatalf("knownBody has %d bytes and SHA-256 %s, want 483 and %s", len(knownBody), got, knownBodySum)
	}
}

func TestSigned(t *testing.T) {
	t.Parallel()
	tests := []struct {
		header string
		want   bool
	}{
		{"X-Akeneo-Signature-Primary", true},
		{"X-Akeneo-Signature-Secondary", true},
		{"X-Akeneo-Signature-Algorithm", true},
		{"X-Akeneo-Signature-Tertiary", true},
		{"x-akeneo-signature-primary", true},
		{"X-Akeneo-Signature", false}, // without the hyphen it is none of the family
		{"X-Akeneo-Request-Signature", false},
		{"Authorization", false},
	}
	for _, test := range tests {
		if got := Signed(http.Header{"Accept": {"*/*"}, test.header: {""}}); got != test.want {
			t.Errorf("Signed with %s = %v, want %v", test.header, got, test.want)
		}
	}
	if Signed(nil) {
		t.Error("Signed without headers = true")
	}
}

func TestVerified(t *testing.T) {
	t.Parallel()
	signed := func(values ...string) http.Header {
		h := http.Header{}
		for i := 0; i < len(values); i += 2 {
			h.Add(values[i], values[i+1])
		}
		return h
	}
	both := []sdk.Secret{primarySecret, secondarySecret}
	const p, s, a = "X-AKENEO-SIGNATURE-PRIMARY", "X-AKENEO-SIGNATURE-SECONDARY", "X-AKENEO-SIGNATURE-ALGORITHM"
	wrong := strings.Repeat("0", 64)
	tests := []struct {
		name    string
		header  http.Header
		secrets []sdk.Secret
		want    bool
	}{
		{"as the platform sends it", signed(p, primarySignature, s, secondSignature, a, "HmacSHA256"), both, true},
		{"primary alone", signed(p, primarySignature, a, "HmacSHA256"), both[:1], true},
		{"second vector", signed(p, secondSignature), both[1:], true},
		{"only the secondary fits", signed(p, wrong, s, secondSignature), both[1:], true},
		{"primary under our second secret", signed(p, secondSignature), both, true},
		{"secondary under our first secret", signed(s, primarySignature), both, true},
		{"upper-case digits", signed(p, strings.ToUpper(primarySignature)), both, true},
		{"algorithm in another case", signed(p, primarySignature, a, "hmacsha256"), both, true},
		{"no algorithm", signed(p, primarySignature), both, true},
		{"useless primary, good secondary", signed(p, "", s, secondSignature), both, true},

		{"other algorithm", signed(p, primarySignature, a, "HmacSHA512"), both, false},
		{"empty algorithm", signed(p, primarySignature, a, ""), both, false},
		{"algorithm twice", signed(p, primarySignature, a, "HmacSHA256", a, "HmacSHA256"), both, false},
		{"wrong sum", signed(p, wrong), both, false},
		{"other secret", signed(p, primarySignature), both[1:], false},
		{"no secrets", signed(p, primarySignature), nil, false},
		{"empty secret", signed(p, signature("", []byte(knownBody))), []sdk.Secret{""}, false},
		{"primary twice", signed(p, primarySignature, p, primarySignature), both, false},
		{"secondary twice", signed(p, primarySignature, s, wrong, s, wrong), both, false},
		{"joined values", signed(p, primarySignature+", "+primarySignature), both, false},
		{"empty", signed(p, ""), both, false},
		{"too short", signed(p, primarySignature[:62]), both, false},
		{"too long", signed(p, primarySignature+"00"), both, false},
		{"not hexadecimal", signed(p, "z"+primarySignature[1:]), both, false},
		{"surrounded by space", signed(p, " "+primarySignature[:62]+" "), both, false},
		{"no signature header", signed("Content-Type", "application/json"), both, false},
		{"algorithm alone", signed(a, "HmacSHA256"), both, false},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			if got := verified(test.header, []byte(knownBody), signingKeys(test.secrets)); got != test.want {
				t.Errorf("verified = %v, want %v", got, test.want)
			}
		})
	}
}

func TestVerifiedCoversEveryByte(t *testing.T) {
	t.Parallel()
	keys := signingKeys([]sdk.Secret{primarySecret})
	h := http.Header{headerPrimary: {primarySignature}}
	for i := range len(knownBody) {
		body := []byte(knownBody)
		body[i] ^= 1
		if verified(h, body, keys) {
			t.Fatalf("verified with byte %d changed", i)
		}
	}
	if verified(h, []byte(knownBody+"\n"), keys) {
		t.Error("verified with a newline appended")
	}
}

func TestSigningKeysKeepsOrderWithoutRepetition(t *testing.T) {
	t.Parallel()
	keys := signingKeys([]sdk.Secret{"", "b", "a", "b", ""})
	if len(keys) != 2 || keys[0].secret != "b" || keys[1].secret != "a" {
		t.Errorf("signingKeys kept %d keys, want b and a", len(keys))
	}
}

// signature is the platform's signature of body, computed without the code
// under test.
func signature(secret sdk.Secret, body []byte) string {
	mac := hmac.New(sha256.New, []byte(secret))
	mac.Write(body)
	return hex.EncodeToString(mac.Sum(nil))
}

// FuzzVerified: of all the header values that are 64 hexadecimal digits, only
// the right one verifies.
func FuzzVerified(f *testing.F) {
	f.Add(primarySignature, "", "HmacSHA256", []byte(knownBody))
	f.Add("", secondSignature, "hmacsha256", []byte(knownBody))
	f.Add(strings.ToUpper(primarySignature), primarySignature, "", []byte(knownBody))
	f.Add(primarySignature+","+primarySignature, "0x"+primarySignature, "none", []byte{})
	keys := signingKeys([]sdk.Secret{primarySecret, secondarySecret})
	f.Fuzz(func(t *testing.T, primary, secondary, algorithm string, body []byte) {
		h := http.Header{headerPrimary: {primary}, headerSecondary: {secondary}}
		if algorithm != "" {
			h[headerAlgorithm] = []string{algorithm}
		}
		fits := false
		for _, value := range []string{primary, secondary} {
			for _, secret := range []sdk.Secret{primarySecret, secondarySecret} {
				fits = fits || bytes.EqualFold([]byte(value), []byte(signature(secret, body)))
			}
		}
		want := fits && (algorithm == "" || strings.EqualFold(algorithm, "HmacSHA256"))
		if got := verified(h, body, keys); got != want {
			t.Errorf("verified = %v, want %v", got, want)
		}
	})
}
