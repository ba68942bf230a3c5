package main

import (
	"fmt"
	"maps"
	"net/url"
	"slices"
	"strings"
	"text/template"
	"time"

	"github.com/pimrelay/pimrelay/sdk"
)

// config is the forwarder's part of the relay's configuration file.
type config struct {
	URL         sdk.Secret   `json:"url" doc:"the incoming webhook; who knows it can post, so it is a secret"`
	Style       string       `json:"style" doc:"slack, google-chat or teams"`
	Text        string       `json:"text" doc:"the message, a Go template"`
	MinInterval sdk.Duration `json:"min_interval" doc:"least time between two messages"`

	message *template.Template // Text, parsed by Validate
}

// longestInterval bounds min_interval: a lane slower than that is a mistake.
const longestInterval = time.Hour

func defaultConfig() config {
	return config{
		Style: "slack",
		Text:  `{{.Type}}{{if .Entity}} {{.Entity}}{{end}}`,
		// Slack and Google Chat both take one message a second from a
		// webhook; Teams takes four.
		MinInterval: sdk.Duration(time.Second),
	}
}

// Validate is called by sdk.DecodeConfig.
func (c *config) Validate() sdk.Faults {
	var faults sdk.Faults
	if problem := urlProblem(string(c.URL)); problem != "" {
		faults.Add("url", problem)
	}
	if _, ok := styles[c.Style]; !ok {
		faults.Add("style", "must be "+strings.Join(slices.Sorted(maps.Keys(styles)), ", ")+fmt.Sprintf(" (got %q)", c.Style))
	}
	message, err := parseText(c.Text)
	if err != nil {
		faults.Add("text", err.Error())
	}
	c.message = message
	if c.MinInterval < 0 || time.Duration(c.MinInterval) > longestInterval {
		faults.Add("min_interval", fmt.Sprintf("must be from 0s to %s (got %s)", longestInterval, c.MinInterval))
	}
	return faults
}

// urlProblem says what is wrong with raw without quoting it: it is a secret.
func urlProblem(raw string) string {
	const example = "such as https://hooks.slack.com/services/…"
	if raw == "" {
		return "is required, the address of an incoming webhook " + example
	}
	u, err := url.Parse(raw)
	if err != nil || u.Hostname() == "" || u.Scheme != "http" && u.Scheme != "https" || u.User != nil {
		return "must be an absolute http or https URL without user name and password, " + example
	}
	return ""
}

// secrets are the parts of the URL that nobody must see: all but its host.
func (c *config) secrets() []string {
	u, err := url.Parse(string(c.URL))
	if err != nil {
		return []string{string(c.URL)}
	}
	all := []string{string(c.URL), u.RequestURI(), u.EscapedPath(), u.Path, u.RawQuery}
	all = append(all, strings.Split(u.Path, "/")...)
	for _, values := range u.Query() {
		all = append(all, values...)
	}
	// What is shorter is a word such as "v1", and hiding it would hide others.
	all = slices.DeleteFunc(all, func(s string) bool { return len(s) < 6 })
	slices.SortFunc(all, func(a, b string) int { return len(b) - len(a) }) // the longest first, so that none is hidden in part
	return slices.Compact(all)
}

// description is what the forwarder says of itself.
func description() sdk.Description {
	c := defaultConfig()
	return sdk.Description{Name: "chat", Version: "1.0.0", ConfigSchema: sdk.ConfigSchema(&c), KeepsOrder: true}
}
