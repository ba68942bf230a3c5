package http

import (
	"context"
	"errors"
	nethttp "net/http"
	"net/url"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/pimrelay/pimrelay/sdk"
)

const (
	// answerLimit is how many bytes of an answer are kept.
	answerLimit = 2 << 10
	// longestWait bounds Retry-After.
	longestWait = 24 * time.Hour
	// reasonLimit is how many bytes of an error's text are kept: some errors
	// quote what the destination sent.
	reasonLimit = 512
)

// repairable are the client errors (4xx) that speak about the destination
// rather than about the event, and what to look at. Each event would meet them,
// so rejecting would empty the lane into the dead letters: they are retried
// until somebody has put the matter right.
var repairable = map[int]string{
	nethttp.StatusUnauthorized:       "check the credentials in headers",
	nethttp.StatusPaymentRequired:    "check the account at the destination",
	nethttp.StatusForbidden:          "check the credentials in headers",
	nethttp.StatusNotFound:           "check url",
	nethttp.StatusMethodNotAllowed:   "check method",
	nethttp.StatusProxyAuthRequired:  "check the proxy",
	nethttp.StatusRequestTimeout:     "",
	nethttp.StatusConflict:           "an earlier attempt may be in progress there",
	nethttp.StatusGone:               "check url",
	nethttp.StatusMisdirectedRequest: "check url",
	nethttp.StatusLocked:             "",
	nethttp.StatusTooEarly:           "",
	nethttp.StatusUpgradeRequired:    "check url",
}

// classify is the outcome that a status means; now is for a Retry-After that
// holds a date.
func classify(status int, header nethttp.Header, now time.Time) sdk.Outcome {
	reason := "answered " + strings.TrimSpace(strconv.Itoa(status)+" "+nethttp.StatusText(status))
	after := retryAfter(header.Get("Retry-After"), now)
	remedy, passes := repairable[status]
	if remedy != "" {
		reason += ": " + remedy
	}
	switch {
	case status >= 200 && status < 300:
		return sdk.Delivered()
	case status == nethttp.StatusTooManyRequests:
		return sdk.Throttled(after, reason)
	case status >= 300 && status < 400:
		return sdk.Retry(after, errors.New(reason+": redirects are not followed, check url"+redirectTarget(header)))
	case status >= 400 && status < 500 && !passes:
		return sdk.Rejected(reason)
	}
	return sdk.Retry(after, errors.New(reason))
}

// redirectTarget is the host of a redirect. The rest of it may repeat secrets
// of the request.
func redirectTarget(header nethttp.Header) string {
	target, err := url.Parse(header.Get("Location"))
	if err != nil || !target.IsAbs() || target.Hostname() == "" || len(target.Host) > 255 || !isVisible(target.Host) {
		return ""
	}
	return " (points to " + target.Scheme + "://" + target.Host + ")"
}

// retryAfter is the wait that a Retry-After header asks for, in either of its
// forms (RFC 9110, section 10.2.3): zero if it asks for none, lies in the past
// or cannot be read, and at most longestWait.
func retryAfter(value string, now time.Time) time.Duration {
	value = strings.TrimSpace(value)
	digits := value != "" && strings.Trim(value, "0123456789") == ""
	if digits {
		seconds, err := strconv.ParseInt(value, 10, 64)
		if err != nil || seconds > int64(longestWait/time.Second) {
			return longestWait // so many digits that they are no int64
		}
		return time.Duration(seconds) * time.Second
	}
	date, err := nethttp.ParseTime(value)
	if err != nil {
		return 0
	}
	return min(max(date.Sub(now), 0), longestWait)
}

// transportError says in one line why there is no response. An error may quote
// what the destination sent, and with it a secret.
func transportError(err error, secrets []string) error {
	switch {
	case errors.Is(err, context.DeadlineExceeded):
		return errors.New("no answer within the lane's timeout")
	case errors.Is(err, context.Canceled):
		return errors.New("stopped before the answer came")
	}
	return errors.New(strings.Join(strings.Fields(clean(err.Error(), secrets, reasonLimit)), " "))
}

// readable is the start of an answer as text of at most answerLimit bytes,
// without secrets and without what could disturb a terminal.
func readable(start []byte, secrets []string) string {
	text := string(start)
	if len(text) == answerLimit {
		text = cutPartial(text, secrets)
	}
	return strings.TrimSpace(clean(text, secrets, answerLimit))
}

// clean is text in UTF-8 of at most limit bytes, without secrets and without
// control characters other than line feeds and tabs.
func clean(text string, secrets []string, limit int) string {
	for _, secret := range secrets {
		text = strings.ReplaceAll(text, secret, sdk.Secret(secret).String())
	}
	text = strings.Map(func(r rune) rune {
		if unicode.IsControl(r) && r != '\n' && r != '\t' {
			return ' '
		}
		return r
	}, strings.ToValidUTF8(text, string(utf8.RuneError)))
	if len(text) > limit {
		text = strings.ToValidUTF8(text[:limit], "")
	}
	return text
}

// isVisible reports whether text consists of visible ASCII.
func isVisible(text string) bool {
	return !strings.ContainsFunc(text, func(r rune) bool { return r <= ' ' || r > '~' })
}

// cutPartial cuts the beginning of a secret off the end of text, which stops
// somewhere in the middle of an answer.
func cutPartial(text string, secrets []string) string {
	cut := 0
	for _, secret := range secrets {
		for n := min(len(secret)-1, len(text)); n > cut; n-- {
			if strings.HasSuffix(text, secret[:n]) {
				cut = n
				break
			}
		}
	}
	return text[:len(text)-cut]
}
