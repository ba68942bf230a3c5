package subscription

import (
	"net/url"
	"path"
	"strings"
)

// sameURL reports whether two URLs lead to the same place, although they may be
// written differently.
func sameURL(a, b string) bool { return normalURL(a) == normalURL(b) }

// normalURL writes a URL in one way: scheme and host in lower case, no default
// port, a clean path without a slash at its end, no fragment. A query stays, and
// so do credentials: a URL that has them is another one. What is no URL stays as
// it is.
func normalURL(text string) string {
	u, err := url.Parse(strings.TrimSpace(text))
	if err != nil || u.Host == "" {
		return text
	}
	host := strings.ToLower(u.Host)
	switch u.Scheme { // lower case already
	case "https":
		host = strings.TrimSuffix(host, ":443")
	case "http":
		host = strings.TrimSuffix(host, ":80")
	}
	normal := u.Scheme + "://"
	if u.User != nil {
		normal += u.User.String() + "@"
	}
	normal += host + strings.TrimSuffix(path.Clean("/"+u.EscapedPath()), "/")
	if u.RawQuery != "" {
		normal += "?" + u.RawQuery
	}
	return normal
}
