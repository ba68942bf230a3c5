package simulator

import (
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"time"
)

// Documented figures of the logs, and the size of ours.
const (
	logRetention     = 30 * 24 * time.Hour
	logMergeWindow   = 5 * time.Minute // equal errors within it are one entry
	maxLog           = 10_000          // entries kept
	defaultLogLimit  = 50
	maxLogLimit      = 1000
	deliveryFailed   = "failed_to_deliver_event"
	transportCode    = http.StatusInternalServerError // error_code where no status came back
	documentationURL = "https://api.akeneo.com/event-platform/logs.html#"
)

// logEntry is one line of GET /api/v1/logs.
type logEntry struct {
	ID             string         `json:"log_id"`
	Type           string         `json:"log_type"`
	Timestamp      time.Time      `json:"timestamp"`
	Operation      string         `json:"operation,omitempty"`
	SubscriberID   string         `json:"subscriber_id"`
	SubscriptionID string         `json:"subscription_id"`
	ErrorType      string         `json:"error_type,omitempty"`
	ErrorReason    string         `json:"error_reason,omitempty"`
	ErrorCode      int            `json:"error_code,omitempty"`
	ErrorMessage   string         `json:"error_message,omitempty"`
	Documentation  string         `json:"documentation_url,omitempty"`
	Request        map[string]any `json:"request,omitempty"`
	Response       any            `json:"response,omitempty"`
}

// logAction records what happened to a subscription; call is nil when the
// platform acted by itself. The caller holds mu.
func (s *Simulator) logAction(sub *subscription, operation string, c *call) {
	entry := logEntry{Type: "action", Operation: operation}
	if c != nil {
		entry.Request = map[string]any{"method": c.Method, "url": c.URL.Path, "body": redactBody(c.body)}
		entry.Response = sub.view()
	}
	s.record(sub, entry)
}

// logFailure records a failed delivery. An equal one less than 5 minutes ago
// only gets a new time. The caller holds mu.
func (s *Simulator) logFailure(sub *subscription, a answer, now time.Time) {
	code, message := a.code, fmt.Sprintf("The destination answered %d", a.code)
	if a.err != nil {
		code, message = transportCode, "The destination gave no answer: "+a.reason()
	}
	for i := len(s.log) - 1; i >= 0; i-- {
		e := s.log[i]
		if now.Sub(e.Timestamp) > logMergeWindow {
			break
		}
		if e.Type == "error" && e.SubscriptionID == sub.id && e.ErrorMessage == message {
			e.Timestamp = now.Truncate(time.Second)
			s.log = append(slices.Delete(s.log, i, i+1), e)
			return
		}
	}
	reason := a.reason()
	s.record(sub, logEntry{
		Type: "error", Operation: deliveryFailed, ErrorType: "failed_delivery",
		ErrorReason: reason, ErrorCode: code, ErrorMessage: message, Documentation: documentationURL + reason,
	})
}

// record appends an entry and forgets those that are too old or too many. The
// caller holds mu.
func (s *Simulator) record(sub *subscription, e logEntry) {
	now := s.clock.now()
	e.ID, e.Timestamp = newID(now), now.Truncate(time.Second)
	e.SubscriberID, e.SubscriptionID = sub.subscriber.id, sub.id
	s.log = append(s.log, e)
	for len(s.log) > maxLog || now.Sub(s.log[0].Timestamp) > logRetention {
		s.log = s.log[1:]
	}
}

// listLogs is GET /api/v1/logs. It runs with mu held.
func (s *Simulator) listLogs(c *call) (int, any, error) {
	query := c.URL.Query()
	limit := defaultLogLimit
	if text := query.Get("limit"); text != "" {
		n, err := strconv.Atoi(text)
		if err != nil || n < 1 {
			return 0, nil, refuse(http.StatusBadRequest, "limit must be a number above 0 (got %q)", text)
		}
		limit = min(n, maxLogLimit)
	}
	order, logType, subscription := query.Get("order"), query.Get("log_type"), query.Get("subscription_id")
	switch {
	case order != "" && order != "asc" && order != "desc":
		return 0, nil, refuse(http.StatusBadRequest, "order must be asc or desc (got %q)", order)
	case logType != "" && logType != "action" && logType != "error":
		return 0, nil, refuse(http.StatusBadRequest, "log_type must be action or error (got %q)", logType)
	}
	items := []logEntry{}
	for _, e := range s.log {
		if (logType == "" || e.Type == logType) && (subscription == "" || e.SubscriptionID == subscription) {
			items = append(items, e)
		}
	}
	if order != "asc" {
		slices.Reverse(items)
	}
	if len(items) > limit {
		items = items[:limit]
	}
	if len(items) == 0 && s.opts.Readings.NullLists {
		items = nil
	}
	return http.StatusOK, map[string]any{"items": items}, nil
}

// redactBody is a request's body without the secrets and header values of its
// config.
func redactBody(body []byte) any {
	var fields map[string]any
	if json.Unmarshal(body, &fields) != nil {
		return nil
	}
	config, _ := fields["config"].(map[string]any)
	for _, name := range []string{"secret", "headers"} {
		values, _ := config[name].(map[string]any)
		for key := range values {
			values[key] = redacted
		}
	}
	return fields
}
