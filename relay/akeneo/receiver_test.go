package akeneo

import (
	"errors"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/pimrelay/pimrelay/sdk"
)

func signedHeader(secret sdk.Secret, body string) http.Header {
	h := http.Header{}
	h.Set("X-AKENEO-SIGNATURE-PRIMARY", signature(secret, []byte(body)))
	h.Set("X-AKENEO-SIGNATURE-ALGORITHM", "HmacSHA256")
	h.Set("Content-Type", "application/json")
	return h
}

func TestReceive(t *testing.T) {
	t.Parallel()
	r := NewReceiver("catalog", []sdk.Secret{primarySecret})
	h := signedHeader(primarySecret, knownBody)
	h.Set("X-AKENEO-SIGNATURE-SECONDARY", secondSignature)
	h.Set("X-Correlation-ID", "c")
	h.Set("traceparent", "00-1-2-01")
	h.Set("tracestate", strings.Repeat("x", 513)) // too long to keep
	h.Set("Authorization", "Bearer secret")
	h.Set("User-Agent", "akeneo/event-platform")
	now := time.Date(2026, 11, 23, 12, 0, 0, 0, time.FixedZone("CET", 3600))
	got, err := r.Receive(h, []byte(knownBody), now)
	if err != nil {
		t.Fatal(err)
	}
	want, err := Decode([]byte(knownBody))
	if err != nil {
		t.Fatal(err)
	}
	want.Source = "catalog"
	want.Received = now.UTC()
	want.Headers = map[string]string{
		"X-Akeneo-Signature-Primary":   primarySignature,
		"X-Akeneo-Signature-Secondary": secondSignature,
		"X-Akeneo-Signature-Algorithm": "HmacSHA256",
		"X-Correlation-Id":             "c",
		"Content-Type":                 "application/json",
		"Traceparent":                  "00-1-2-01",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("Receive (-want +got):\n%s", diff)
	}
}

func TestReceiveRefuses(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name    string
		header  http.Header
		secrets []sdk.Secret
		want    error
	}{
		{"no signature", http.Header{"Content-Type": {"application/json"}}, []sdk.Secret{primarySecret}, ErrUnsigned},
		{"another secret", signedHeader("another-secret-0123456789", knownBody), []sdk.Secret{primarySecret}, ErrSignature},
		{"another body", signedHeader(primarySecret, knownBody+" "), []sdk.Secret{primarySecret}, ErrSignature},
		{"no secrets", signedHeader(primarySecret, knownBody), nil, ErrSignature},
		{"an unknown signature header alone", http.Header{"X-Akeneo-Signature-New": {"1"}}, []sdk.Secret{primarySecret}, ErrSignature},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			got, err := NewReceiver("catalog", test.secrets).Receive(test.header, []byte(knownBody), time.Now())
			if !errors.Is(err, test.want) {
				t.Errorf("error %v, want %v", err, test.want)
			}
			if diff := cmp.Diff(sdk.Event{}, got); diff != "" {
				t.Errorf("event (-want +got):\n%s", diff)
			}
		})
	}
}

func TestReceiveUnreadable(t *testing.T) {
	t.Parallel()
	const body = `{"notification_type":"subscription.resumed"}`
	now := time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC)
	got, err := NewReceiver("catalog", []sdk.Secret{primarySecret}).Receive(signedHeader(primarySecret, body), []byte(body), now)
	var unreadable *UnreadableError
	if !errors.As(err, &unreadable) || err.Error() != "the body is no CloudEvent: specversion is missing" || errors.Unwrap(err) == nil {
		t.Fatalf("error %v, want an UnreadableError for the missing specversion", err)
	}
	want := sdk.Event{Source: "catalog", Received: now, Body: []byte(body), Payload: []byte(body),
		ContentType: "application/json", Headers: map[string]string{
			"X-Akeneo-Signature-Primary":   signature(primarySecret, []byte(body)),
			"X-Akeneo-Signature-Algorithm": "HmacSHA256",
			"Content-Type":                 "application/json",
		}}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("event (-want +got):\n%s", diff)
	}
}

// TestSetSecretsWhileReceiving: with both secrets always among those set, no
// delivery is refused at any moment of a rotation.
func TestSetSecretsWhileReceiving(t *testing.T) {
	t.Parallel()
	r := NewReceiver("catalog", []sdk.Secret{primarySecret})
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			h := signedHeader(primarySecret, knownBody)
			for range 500 {
				if _, err := r.Receive(h, []byte(knownBody), time.Time{}); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	for range 500 {
		r.SetSecrets([]sdk.Secret{secondarySecret, primarySecret})
		r.SetSecrets([]sdk.Secret{primarySecret, secondarySecret})
	}
	wg.Wait()
	r.SetSecrets([]sdk.Secret{secondarySecret})
	if _, err := r.Receive(signedHeader(primarySecret, knownBody), []byte(knownBody), time.Time{}); !errors.Is(err, ErrSignature) {
		t.Errorf("a secret that was taken back: error %v, want %v", err, ErrSignature)
	}
}

func BenchmarkReceive(b *testing.B) {
	r := NewReceiver("catalog", []sdk.Secret{primarySecret})
	body := strings.TrimSuffix(knownBody, "}}") + `,"note":"` + strings.Repeat("An ordinary sentence. ", 23) + `"}}`
	h := signedHeader(primarySecret, body)
	now, raw := time.Now(), []byte(body)
	b.SetBytes(int64(len(raw)))
	b.ReportAllocs()
	for b.Loop() {
		if _, err := r.Receive(h, raw, now); err != nil {
			b.Fatal(err)
		}
	}
}
