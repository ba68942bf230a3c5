package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"text/template"
	"time"
	"unicode/utf8"

	"github.com/pimrelay/pimrelay/sdk"
)

// style is what a kind of chat expects.
type style struct {
	// longest is how many characters a message may have.
	longest int
	// body is the JSON of a message.
	body func(text string) any
	// plain is a text as it must be written to be shown as it is.
	plain *strings.Replacer
}

var styles = map[string]style{
	// Slack cuts at 40,000 characters and advises to stay under 4,000.
	"slack": {4000, func(text string) any { return map[string]any{"text": text} }, strings.NewReplacer("&", "&amp;", "<", "&lt;", ">", "&gt;")},
	// Google Chat takes 4,096 characters of text. It has no way to write a <,
	// with which mentions of people begin: a character without width behind
	// it makes it none.
	"google-chat": {4096, func(text string) any { return map[string]any{"text": text} }, strings.NewReplacer("<", "<\u200b")},
	// Teams takes 28 KiB with everything around: an adaptive card, as its
	// workflows expect it.
	"teams": {6000, adaptiveCard, strings.NewReplacer()},
}

func adaptiveCard(text string) any {
	type object = map[string]any
	return object{
		"type": "message",
		"attachments": []any{object{
			"contentType": "application/vnd.microsoft.card.adaptive",
			"content": object{
				"$schema": "http://adaptivecards.io/schemas/adaptive-card.json", "type": "AdaptiveCard", "version": "1.4",
				"body": []any{object{"type": "TextBlock", "text": text, "wrap": true}},
			},
		}},
	}
}

// view is an event as the template sees it. What comes from the event has no
// meaning to the chat, so that a product's name mentions nobody; what the
// template itself says has.
type view struct {
	ID, Type, Subject, Source, Entity, Key string
	Time                                   time.Time
	Attempt                                int
	Replayed                               bool
	Fields                                 map[string]string

	body  []byte
	plain *strings.Replacer
}

func newView(e *sdk.Event, s style) *view {
	p := s.plain.Replace
	fields := make(map[string]string, len(e.Fields))
	for name, value := range e.Fields {
		fields[name] = p(value)
	}
	return &view{
		ID: p(e.ID), Type: p(e.Type), Subject: p(e.Subject), Source: p(e.Source), Entity: p(e.Entity), Key: p(e.Key),
		Time: e.Time, Attempt: e.Attempt, Replayed: e.Replayed, Fields: fields, body: e.Body, plain: s.plain,
	}
}

// Data is the event's data. It is decoded only if the template asks for it.
func (v *view) Data() (any, error) {
	var event struct {
		Data any `json:"data"`
	}
	decoder := json.NewDecoder(bytes.NewReader(v.body))
	decoder.UseNumber() // 123456789 and not 1.23456789e+08
	if err := decoder.Decode(&event); err != nil {
		return nil, errors.New("the event is no JSON")
	}
	return v.plainly(event.Data), nil
}

// plainly makes all the texts in a value plain.
func (v *view) plainly(value any) any {
	switch value := value.(type) {
	case string:
		return v.plain.Replace(value)
	case []any:
		for i := range value {
			value[i] = v.plainly(value[i])
		}
	case map[string]any:
		for key := range value {
			value[key] = v.plainly(value[key])
		}
	}
	return value
}

// parseText parses a template, and tries it to find attributes that no event
// has. What an event's data has is known only when the event is there.
func parseText(text string) (*template.Template, error) {
	if strings.TrimSpace(text) == "" {
		return nil, errors.New("is required: leave it out for a text of type and entity")
	}
	message, err := template.New("text").Parse(text)
	if err != nil {
		return nil, fmt.Errorf("must be a Go template: %w", err)
	}
	trial := newView(&sdk.Event{Body: []byte("{}")}, styles["slack"])
	err = message.Execute(&limited{left: mostText}, trial)
	if err != nil && strings.Contains(err.Error(), "can't evaluate field") && strings.Contains(err.Error(), "in type *main.view") {
		return nil, fmt.Errorf("must name attributes that events have: ID, Type, Subject, Source, Entity, Key, Time, Attempt, Replayed, Fields, Data (%w)", err)
	}
	return message, nil
}

// render is the message for an event, of at most as many characters as the chat
// takes.
func render(message *template.Template, s style, e *sdk.Event) (string, error) {
	out := &limited{left: mostText}
	if err := message.Execute(out, newView(e, s)); err != nil && !errors.Is(err, errEnough) {
		return "", err
	}
	// A key that is not there is no reason to look unfinished.
	text := strings.TrimSpace(strings.ReplaceAll(out.String(), "<no value>", "–"))
	return shorten(strings.ToValidUTF8(text, "\uFFFD"), s.longest), nil
}

// shorten is text of at most longest characters, with an ellipsis if it was
// longer.
func shorten(text string, longest int) string {
	if utf8.RuneCountInString(text) <= longest {
		return text
	}
	return string([]rune(text)[:longest-1]) + "…"
}

// mostText is how many bytes of a template's output are looked at.
const mostText = 64 << 10

var errEnough = errors.New("more than any chat takes")

// limited keeps the beginning of what is written to it, and then says that it is
// enough, so that no template runs for ever.
type limited struct {
	strings.Builder
	left int
}

// Write fails once there is enough.
func (l *limited) Write(p []byte) (int, error) {
	n := min(len(p), l.left)
	l.left -= n
	_, _ = l.Builder.Write(p[:n])
	if n < len(p) {
		return n, errEnough
	}
	return n, nil
}

var _ io.Writer = (*limited)(nil)
