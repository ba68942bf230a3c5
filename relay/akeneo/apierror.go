package akeneo

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"time"
	"unicode"

	"github.com/pimrelay/pimrelay/sdk"
)

// How much of an answer goes into an error.
const (
	maxMessages = 10
	maxMessage  = 300 // bytes
)

// APIError is an answer of the PIM or the platform other than success. The
// call has been refused, unless Status is 500 or above: then it may have been
// carried out all the same.
type APIError struct {
	// Operation says what was to be done: "create subscription".
	Operation string
	// Status is the HTTP status.
	Status int
	// Messages are what the answer says, if it says it in one of the known
	// forms: at most 10 of at most 300 bytes, without secrets of ours.
	Messages []string
	// RetryAfter is how long the answer asks to wait, or zero.
	RetryAfter time.Duration
}

// Error is the operation, the status, the messages and the remedy, if there is
// a known one.
func (e *APIError) Error() string {
	text := fmt.Sprintf("%s: the answer is %d %s", e.Operation, e.Status, http.StatusText(e.Status))
	if len(e.Messages) > 0 {
		text += ": " + strings.Join(e.Messages, "; ")
	}
	if remedy := e.remedy(); remedy != "" {
		text += " (" + remedy + ")"
	}
	return text
}

func (e *APIError) remedy() string {
	switch {
	case e.Operation == obtainToken && e.Invalid():
		return "check client_id, client_secret, username and password of the connection"
	case e.Unauthorized():
		return "check that url, client_id and credentials of the pim section belong together, and that the connection or app still exists"
	case e.Status == http.StatusForbidden:
		return "allow the connection or app to subscribe to events in its settings in the PIM"
	case e.Status >= 300 && e.Status < 400:
		return "redirects are not followed: set the URL that it leads to"
	}
	return ""
}

// Invalid reports that the request itself was refused: 400 or 422, which the
// platform uses alike.
func (e *APIError) Invalid() bool {
	return e.Status == http.StatusBadRequest || e.Status == http.StatusUnprocessableEntity
}

// Unauthorized reports that the token, the client id and the PIM's URL do not
// fit together, or that the token has expired.
func (e *APIError) Unauthorized() bool { return e.Status == http.StatusUnauthorized }

// NotFound reports that there is no such subscriber or subscription.
func (e *APIError) NotFound() bool { return e.Status == http.StatusNotFound }

// Conflict reports that the object is not in a state for this, or that a limit
// of the platform is reached: read it again.
func (e *APIError) Conflict() bool { return e.Status == http.StatusConflict }

// Temporary reports that the same call may succeed later.
func (e *APIError) Temporary() bool {
	return e.Status == http.StatusTooManyRequests || e.Status >= 500
}

// newAPIError reads an answer that is no success. The messages are freed of
// the secrets, should the other side repeat what it was sent.
func newAPIError(operation string, status int, h http.Header, body []byte, secrets []sdk.Secret) *APIError {
	e := &APIError{Operation: operation, Status: status}
	if seconds, err := strconv.ParseUint(h.Get("Retry-After"), 10, 31); err == nil {
		e.RetryAfter = time.Duration(seconds) * time.Second
	}
	for _, message := range answerMessages(body) {
		if message = presentable(message, secrets); message != "" && len(e.Messages) < maxMessages {
			e.Messages = append(e.Messages, message)
		}
	}
	return e
}

// answerMessages are the messages of an error's body in the forms that are
// known: {"errors":[{"message":…}]} of the platform, {"code":…,"message":…} of
// the PIM and its proxy, {"error":…,"error_description":…} of OAuth.
func answerMessages(body []byte) []string {
	var messages []string
	var platform struct {
		Errors []struct {
			Message string `json:"message"`
		} `json:"errors"`
	}
	if json.Unmarshal(body, &platform) == nil {
		for _, e := range platform.Errors {
			messages = append(messages, e.Message)
		}
	}
	var pim struct {
		Message string `json:"message"`
	}
	if json.Unmarshal(body, &pim) == nil {
		messages = append(messages, pim.Message)
	}
	var oauth struct {
		Error       string `json:"error"`
		Description string `json:"error_description"`
	}
	if json.Unmarshal(body, &oauth) == nil {
		messages = append(messages, oauth.Error, oauth.Description)
	}
	return messages
}

// presentable is message on one line, without secrets, and not too long.
func presentable(message string, secrets []sdk.Secret) string {
	for _, secret := range secrets {
		if secret != "" {
			message = strings.ReplaceAll(message, string(secret), "[redacted]")
		}
	}
	message = strings.Map(func(r rune) rune {
		if unicode.IsControl(r) {
			return ' '
		}
		return r
	}, message)
	message = strings.TrimSpace(message)
	if len(message) > maxMessage {
		message = strings.ToValidUTF8(message[:maxMessage], "") + "…"
	}
	return message
}
