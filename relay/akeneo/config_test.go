package akeneo

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/pimrelay/pimrelay/sdk"
)

func TestValidatePIM(t *testing.T) {
	t.Parallel()
	app := PIM{URL: "https://acme.example", ClientID: "c", Token: "t"}
	with := func(p PIM, change func(*PIM)) PIM {
		change(&p)
		return p
	}
	beside := "must not be set beside token: give either an app's token, or the credentials of a connection"
	tests := []struct {
		name string
		pim  PIM
		want sdk.Faults
	}{
		{"a connection", testPIM, nil},
		{"an app", app, nil},
		{"nothing", PIM{}, sdk.Faults{
			{Field: "url", Problem: "must be set to an https URL"},
			{Field: "client_id", Problem: "must be set: it is shown in the settings of the connection or the app in the PIM"},
			{Field: "client_secret", Problem: "must be set, unless token is"},
			{Field: "username", Problem: "must be set, unless token is"},
			{Field: "password", Problem: "must be set, unless token is"},
		}},
		{"both", with(app, func(p *PIM) { p.Username, p.Password = "u", "p" }), sdk.Faults{
			{Field: "username", Problem: beside}, {Field: "password", Problem: beside},
		}},
		{"half a connection", with(testPIM, func(p *PIM) { p.Password = "" }), sdk.Faults{
			{Field: "password", Problem: "must be set, unless token is"},
		}},
		{"a token with a newline", with(app, func(p *PIM) { p.Token = "t\n" }), sdk.Faults{
			{Field: "token", Problem: "must be ASCII without spaces"},
		}},
		{"a client id with a space", with(app, func(p *PIM) { p.ClientID = "c d" }), sdk.Faults{
			{Field: "client_id", Problem: "must be ASCII without spaces"},
		}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			if diff := cmp.Diff(test.want, test.pim.Validate()); diff != "" {
				t.Errorf("Validate (-want +got):\n%s", diff)
			}
		})
	}
}

func TestCheckURL(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{
		"https://acme.example":         "",
		"https://acme.example:8443/x/": "",
		"http://127.0.0.1:9000":        "",
		"http://[::1]:9000":            "",
		"http://localhost":             "",
		"":                             "must be set to an https URL",
		"acme.example":                 "must be an https URL with a host name",
		"https://":                     "must be an https URL with a host name",
		"https://a b":                  "must be an https URL with a host name",
		"https://a/\n":                 "must be an https URL with a host name",
		"https://u:p@acme.example":     "must not hold credentials",
		"https://acme.example?x=1":     "must have neither a query nor a fragment",
		"https://acme.example/#x":      "must have neither a query nor a fragment",
		"http://acme.example":          "must begin with https:// (http:// only for a loopback address)",
		"http://127.0.0.1.example":     "must begin with https:// (http:// only for a loopback address)",
		"ftp://acme.example":           "must begin with https:// (http:// only for a loopback address)",
	} {
		got := ""
		if err := CheckURL(text); err != nil {
			got = err.Error()
		}
		if got != want {
			t.Errorf("CheckURL(%q) = %q, want %q", text, got, want)
		}
	}
}
