package akeneo

import (
	"errors"
	"net/netip"
	"net/url"
	"strings"
	"unicode"

	"github.com/pimrelay/pimrelay/sdk"
)

// DefaultPlatformURL is where the Management API of the Event Platform is.
const DefaultPlatformURL = "https://event.prd.sdk.akeneo.cloud"

// PIM is the `pim` section of a source: which PIM the events come from, and as
// whom the relay subscribes. A connection has ClientID, ClientSecret, Username
// and Password; an app has ClientID and Token.
type PIM struct {
	// URL is the PIM's base URL.
	URL string `koanf:"url"`
	// ClientID is the client id that the token is issued for.
	ClientID string `koanf:"client_id"`
	// ClientSecret is the connection's secret.
	ClientSecret sdk.Secret `koanf:"client_secret"`
	// Username and Password are the connection's API user.
	Username string     `koanf:"username"`
	Password sdk.Secret `koanf:"password"`
	// Token is an app's access token, which lives until the app is removed.
	Token sdk.Secret `koanf:"token"`
}

// Validate checks the section. Fields are relative to it.
func (p PIM) Validate() sdk.Faults {
	var faults sdk.Faults
	if err := CheckURL(p.URL); err != nil {
		faults.Add("url", err.Error())
	}
	for _, field := range []struct{ name, value string }{
		{"client_id", p.ClientID},
		{"token", string(p.Token)},
	} {
		if strings.ContainsFunc(field.value, func(r rune) bool { return r <= ' ' || r >= unicode.MaxASCII }) {
			faults.Add(field.name, "must be ASCII without spaces")
		}
	}
	if p.ClientID == "" {
		faults.Add("client_id", "must be set: it is shown in the settings of the connection or the app in the PIM")
	}
	connection := []struct{ name, value string }{
		{"client_secret", string(p.ClientSecret)},
		{"username", p.Username},
		{"password", string(p.Password)},
	}
	for _, field := range connection {
		switch {
		case p.Token != "" && field.value != "":
			faults.Add(field.name, "must not be set beside token: give either an app's token, or the credentials of a connection")
		case p.Token == "" && field.value == "":
			faults.Add(field.name, "must be set, unless token is")
		}
	}
	return faults
}

// CheckURL reports why text is no base URL of a PIM or of the platform: an
// https URL with a host, without credentials, query and fragment. Plain http is
// accepted for a loopback address, where a simulator listens.
func CheckURL(text string) error {
	u, err := url.Parse(text)
	switch {
	case text == "":
		return errors.New("must be set to an https URL")
	case err != nil || u.Hostname() == "" || strings.ContainsFunc(text, unicode.IsSpace):
		return errors.New("must be an https URL with a host name")
	case u.User != nil:
		return errors.New("must not hold credentials")
	case u.RawQuery != "" || u.ForceQuery || u.Fragment != "":
		return errors.New("must have neither a query nor a fragment")
	case u.Scheme == "https" || u.Scheme == "http" && loopback(u.Hostname()):
		return nil
	}
	return errors.New("must begin with https:// (http:// only for a loopback address)")
}

func loopback(host string) bool {
	ip, err := netip.ParseAddr(host)
	return strings.EqualFold(host, "localhost") || err == nil && ip.IsLoopback()
}
