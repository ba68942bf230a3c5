package simulator

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// answer is what came back from one attempt: a status, or an error instead.
type answer struct {
	code int
	err  error
	took time.Duration
}

// verdict is what an answer means for its event.
type verdict int

const (
	acknowledged verdict = iota
	failed
	throttled // slows the pace
	fatal     // suspends the subscription at once
)

func (a answer) verdict(any2xx bool) verdict {
	switch {
	case a.err != nil:
		return failed
	case a.code == http.StatusOK, any2xx && a.code/100 == 2:
		return acknowledged
	case a.code == http.StatusTooManyRequests:
		return throttled
	case a.code == http.StatusNotFound, a.code/100 == 3:
		return fatal
	}
	return failed
}

// label is the answer in the report: its status or the reason of its error.
func (a answer) label() string {
	if a.err != nil {
		return a.reason()
	}
	return strconv.Itoa(a.code)
}

// fatalReason says why an answer suspends.
func (a answer) fatalReason() string {
	if a.code == http.StatusNotFound {
		return "Destination not found (404)"
	}
	return fmt.Sprintf("Destination redirected (%d)", a.code)
}

// reason is the platform's error_reason for a failed attempt, one of a closed
// list.
func (a answer) reason() string {
	switch {
	case a.err != nil:
		return transportReason(a.err)
	case a.code == http.StatusNotFound:
		return "destination_not_found"
	case a.code/100 == 3:
		return "destination_redirected"
	}
	return "destination_failure"
}

// errnoReasons are the error_reasons of what the operating system reports.
var errnoReasons = []struct {
	errno  syscall.Errno
	reason string
}{
	{syscall.ECONNREFUSED, "connection_refused"},
	{syscall.ECONNRESET, "connection_reset"},
	{syscall.EPIPE, "connection_reset"},
	{syscall.ENETUNREACH, "network_unreachable"},
	{syscall.EHOSTUNREACH, "network_unreachable"},
}

// transportReason names the cause of an exchange that gave no status.
func transportReason(err error) string {
	if dns := (*net.DNSError)(nil); errors.As(err, &dns) {
		return "dns_lookup_failure"
	}
	if errors.Is(err, context.DeadlineExceeded) || errors.Is(err, os.ErrDeadlineExceeded) {
		return "destination_timeout"
	}
	if cert := (*tls.CertificateVerificationError)(nil); errors.As(err, &cert) {
		return "invalid_certificate"
	}
	for _, e := range errnoReasons {
		if errors.Is(err, e.errno) {
			return e.reason
		}
	}
	var (
		alert  tls.AlertError
		record tls.RecordHeaderError
		text   = err.Error()
	)
	switch {
	case errors.As(err, &alert), errors.As(err, &record), strings.Contains(text, "tls: "), strings.Contains(text, "HTTP response to HTTPS client"):
		return "invalid_tls_handshake"
	case strings.Contains(text, "GOAWAY"):
		return "server_goaway"
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		return "unexpected_eof"
	}
	return "destination_failure"
}
