package akeneo

import (
	"bytes"
	"errors"
	"fmt"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/pimrelay/pimrelay/sdk"
)

// ContentType is the media type of a CloudEvent in structured JSON mode, which
// is what a delivery's body is, whatever its own Content-Type header says.
const ContentType = "application/cloudevents+json"

// The longest attributes in bytes. The platform's own are far below: its ids
// are UUIDs.
const (
	maxID        = 1024
	maxType      = 256
	maxAttribute = 2048
)

// attributes are the values of an envelope's members as they are written, or
// nil where there is none.
type attributes struct {
	specVersion, id, eventType, source         []byte
	subject, time, dataContentType, dataSchema []byte
	data                                       []byte
}

// Decode reads a delivery's body: one CloudEvent 1.x in structured JSON mode.
// It sets the CloudEvents attributes, Entity, Body, Payload and ContentType.
// Body and Payload are body itself, nothing else refers to it.
//
// Specversion, id, type and source must be there as non-empty strings without
// control characters, ids up to 1024 and types up to 256 bytes. The other
// attributes are left empty where they are missing, null, of another type, over
// 2048 bytes or have control characters, and so is a time that is not RFC 3339;
// the event is worth more than they are. Of members with the same name the last
// counts, as it does for nearly every JSON reader, so that the relay and a
// destination see the same event. Names are case-sensitive. Text that is not
// UTF-8, not one JSON object, or nests more than 512 levels is an error; an
// array is one too, for the platform sends one event a delivery. Errors quote
// nothing of the body.
func Decode(body []byte) (sdk.Event, error) {
	if !utf8.Valid(body) {
		return sdk.Event{}, errors.New("not valid UTF-8")
	}
	var a attributes
	if err := members(body, a.set); err != nil {
		return sdk.Event{}, err
	}
	event, err := a.event()
	if err != nil {
		return sdk.Event{}, err
	}
	event.Body, event.Payload, event.ContentType = body, body, ContentType
	return event, nil
}

// event is what the attributes say.
func (a *attributes) event() (event sdk.Event, err error) {
	version, err := required("specversion", a.specVersion, maxAttribute)
	if err != nil {
		return event, err
	}
	if !strings.HasPrefix(version, "1.") {
		return event, errors.New("specversion is not 1.0")
	}
	if event.ID, err = required("id", a.id, maxID); err != nil {
		return event, err
	}
	var of *kind
	if event.Type, of, err = typeOf(a.eventType); err != nil {
		return event, err
	}
	if event.EventSource, err = required("source", a.source, maxAttribute); err != nil {
		return event, err
	}
	event.Subject = optional(a.subject)
	event.DataContentType = optional(a.dataContentType)
	event.DataSchema = optional(a.dataSchema)
	if t, err := time.Parse(time.RFC3339, optional(a.time)); err == nil {
		event.Time = t.UTC()
	}
	if of != nil {
		event.Entity = entityOf(of, a.data)
	}
	return event, nil
}

// set keeps the member if it is one of the attributes.
func (a *attributes) set(name, value []byte) {
	if bytes.IndexByte(name, '\\') >= 0 {
		name = []byte(`"` + unquote(name) + `"`)
	}
	switch string(name) {
	case `"specversion"`:
		a.specVersion = value
	case `"id"`:
		a.id = value
	case `"type"`:
		a.eventType = value
	case `"source"`:
		a.source = value
	case `"subject"`:
		a.subject = value
	case `"time"`:
		a.time = value
	case `"datacontenttype"`:
		a.dataContentType = value
	case `"dataschema"`:
		a.dataSchema = value
	case `"data"`:
		a.data = value
	}
}

// typeOf is the event's type, and its kind if the type is documented.
func typeOf(value []byte) (string, *kind, error) {
	if len(value) > 2 {
		if known, ok := catalogue[string(value[1:len(value)-1])]; ok && value[0] == '"' {
			return known.name, known.kind, nil
		}
	}
	name, err := required("type", value, maxType)
	return name, catalogue[name].kind, err
}

// required is the text of an attribute that every event has.
func required(name string, value []byte, limit int) (string, error) {
	if len(value) == 0 || string(value) == "null" {
		return "", fmt.Errorf("%s is missing", name)
	}
	if value[0] != '"' {
		return "", fmt.Errorf("%s is not a string", name)
	}
	switch text := unquote(value); {
	case text == "":
		return "", fmt.Errorf("%s is empty", name)
	case len(text) > limit:
		return "", fmt.Errorf("%s has more than %d bytes", name, limit)
	case !printable(text):
		return "", fmt.Errorf("%s has control characters", name)
	default:
		return text, nil
	}
}

// optional is the text of an attribute that may be missing, or empty if it has
// none that can be used.
func optional(value []byte) string {
	if len(value) == 0 || value[0] != '"' {
		return ""
	}
	text := unquote(value)
	if len(text) > maxAttribute || !printable(text) {
		return ""
	}
	return text
}

// printable reports whether text has no control characters. CloudEvents forbids
// them in attributes, and these values end up in headers and log lines.
func printable(text string) bool {
	return strings.IndexFunc(text, unicode.IsControl) < 0
}
