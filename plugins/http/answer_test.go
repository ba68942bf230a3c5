package http

import (
	nethttp "net/http"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"

	"github.com/pimrelay/pimrelay/sdk"
)

func TestClassify(t *testing.T) {
	t.Parallel()
	results := map[sdk.Result][]int{
		sdk.ResultDelivered: {200, 201, 202, 204, 207, 299},
		sdk.ResultThrottled: {429},
		sdk.ResultRejected:  {400, 406, 411, 412, 413, 414, 415, 416, 417, 418, 422, 424, 428, 431, 451, 499},
		sdk.ResultRetry: {
			101, 300, 301, 302, 303, 304, 307, 308, 401, 402, 403, 404, 405, 407, 408, 409, 410, 421, 423, 425, 426,
			500, 501, 502, 503, 504, 505, 507, 511, 599, 600, 999,
		},
	}
	for want, statuses := range results {
		for _, status := range statuses {
			got := classify(status, nethttp.Header{"Retry-After": {"30"}}, time.Now())
			if got.Result != want {
				t.Errorf("%d is %v, want %v", status, got.Result, want)
			}
			waits := want == sdk.ResultRetry || want == sdk.ResultThrottled
			if waits != (got.After == 30*time.Second) {
				t.Errorf("%d waits %v", status, got.After)
			}
			if (want == sdk.ResultDelivered) != (got.Reason == "") {
				t.Errorf("%d has the reason %q", status, got.Reason)
			}
		}
	}
}

func TestClassifyGivesReason(t *testing.T) {
	t.Parallel()
	for status, want := range map[int]string{
		401: "answered 401 Unauthorized: check the credentials in headers",
		404: "answered 404 Not Found: check url",
		408: "answered 408 Request Timeout",
		413: "answered 413 Request Entity Too Large",
		503: "answered 503 Service Unavailable",
		599: "answered 599",
	} {
		if got := classify(status, nil, time.Now()).Reason; got != want {
			t.Errorf("%d has the reason %q, want %q", status, got, want)
		}
	}
	const redirect = "answered 302 Found: redirects are not followed, check url"
	for location, want := range map[string]string{
		"":                                    "",
		"/elsewhere?token=hunter2":            "",
		"https://u:hunter2@b.example/c?d":     " (points to https://b.example)",
		"http://[::1]:80/hunter2":             " (points to http://[::1]:80)",
		"https://é.example/":                  "",
		"https://" + strings.Repeat("x", 300): "",
		"%zz":                                 "",
	} {
		got := classify(302, nethttp.Header{"Location": {location}}, time.Now()).Reason
		if got != redirect+want {
			t.Errorf("Location %q gives the reason %q", location, got)
		}
	}
}

func TestRetryAfter(t *testing.T) {
	t.Parallel()
	now := time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC)
	for value, want := range map[string]time.Duration{
		"":                                0,
		"0":                               0,
		"120":                             2 * time.Minute,
		" 5 ":                             5 * time.Second,
		"86400":                           24 * time.Hour,
		"86401":                           24 * time.Hour,
		"99999999999999999999":            24 * time.Hour,
		"9223372036854775807":             24 * time.Hour,
		"-5":                              0,
		"1.5":                             0,
		"+5":                              0,
		"5s":                              0,
		"soon":                            0,
		"Mon, 23 Nov 2026 12:00:30 GMT":   30 * time.Second,
		"Monday, 23-Nov-26 12:01:00 GMT":  time.Minute,
		"Mon Nov 23 12:02:00 2026":        2 * time.Minute,
		"Mon, 23 Nov 2026 11:59:59 GMT":   0,
		"Thu, 23 Nov 2523 12:00:00 GMT":   24 * time.Hour,
		"Mon, 23 Nov 2026 12:00:30 +0100": 0,
	} {
		if got := retryAfter(value, now); got != want {
			t.Errorf("Retry-After %q is %v, want %v", value, got, want)
		}
	}
}

func TestReadable(t *testing.T) {
	t.Parallel()
	secrets := []string{"Bearer hunter2", "hunter2"}
	filler := strings.Repeat("x", answerLimit)
	for name, test := range map[string]struct{ in, want string }{
		"empty":               {"", ""},
		"text":                {" not\tfound\n", "not\tfound"},
		"no UTF-8":            {"a\xffb", "a\uFFFDb"},
		"terminal control":    {"a\x1b[2Jb\r\nc\u009bd", "a [2Jb \nc d"},
		"secrets":             {"got Bearer hunter2, hunter2!", "got [redacted], [redacted]!"},
		"secret at the cut":   {filler[:answerLimit-5] + "hunte", filler[:answerLimit-5]},
		"not cut":             {"hunte", "hunte"},
		"rune at the cut":     {filler[:answerLimit-1] + "\xc3", filler[:answerLimit-1]},
		"growing replacement": {strings.Repeat("hunter2", 292) + "1234", strings.Repeat("[redacted]", 204) + "[redacte"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if diff := cmp.Diff(test.want, readable([]byte(test.in), secrets)); diff != "" {
				t.Errorf("unexpected answer (-want +got):\n%s", diff)
			}
		})
	}
}

func FuzzAnswer(f *testing.F) {
	f.Add([]byte("Bearer hunter2"), "Mon, 23 Nov 2026 12:00:30 GMT", "https://example.com/?a")
	f.Add([]byte("\xff\x1b\u009b"), "99999999999999999999999", "//hunter2@[::1")
	f.Fuzz(func(t *testing.T, body []byte, after, location string) {
		answer := readable(body[:min(len(body), answerLimit)], []string{"hunter2"})
		if !utf8.ValidString(answer) || len(answer) > answerLimit || strings.Contains(answer, "hunter2") || strings.ContainsAny(answer, "\x1b\x00\r") {
			t.Errorf("an answer reads %q", answer)
		}
		header := nethttp.Header{"Retry-After": {after}, "Location": {location}}
		for _, status := range []int{302, 429, 503} {
			o := classify(status, header, time.Now())
			if o.After < 0 || o.After > longestWait || strings.ContainsAny(o.Reason, "\n\r") || len(o.Reason) > reasonLimit {
				t.Errorf("%d is %+v", status, o)
			}
		}
	})
}
