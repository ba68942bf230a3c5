package http

import (
	"crypto/x509"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	nethttp "net/http"
	"net/url"
	"os"
	"slices"
	"strconv"
	"strings"

	"github.com/pimrelay/pimrelay/sdk"
)

// signaturePrefix begins the names of the platform's signature headers.
const signaturePrefix = "X-Akeneo-Signature-"

type config struct {
	URL            string                `json:"url" doc:"receives the events"`
	Method         string                `json:"method" doc:"POST, PUT or PATCH"`
	Headers        map[string]sdk.Secret `json:"headers" doc:"sent with each request"`
	PassSignatures bool                  `json:"pass_signatures" doc:"send the platform's own signature headers along"`
	TrustedRoots   string                `json:"trusted_roots" doc:"PEM file of authorities that are trusted beside the system's"`

	MaxIdleConnections int `json:"max_idle_connections" doc:"connections that are kept for reuse"`

	roots *x509.CertPool // read from TrustedRoots; nil: the system's
}

func defaultConfig() config {
	return config{Method: nethttp.MethodPost, MaxIdleConnections: 32}
}

// Validate checks what can be checked without the destination and reads the
// file that TrustedRoots names.
func (c *config) Validate() sdk.Faults {
	var faults sdk.Faults
	if problem := urlProblem(c.URL); problem != "" {
		faults.Add("url", problem)
	}
	if !slices.Contains([]string{nethttp.MethodPost, nethttp.MethodPut, nethttp.MethodPatch}, c.Method) {
		faults.Add("method", "must be POST, PUT or PATCH")
	}
	faults = append(faults, headerFaults(c.Headers)...)
	if c.MaxIdleConnections < 1 || c.MaxIdleConnections > 10_000 {
		faults.Add("max_idle_connections", fmt.Sprintf("must be from 1 to 10000 (got %d)", c.MaxIdleConnections))
	}
	if c.TrustedRoots != "" {
		roots, err := readRoots(c.TrustedRoots)
		if err != nil {
			faults.Add("trusted_roots", err.Error())
		}
		c.roots = roots
	}
	return faults
}

// urlProblem says what is wrong with raw without quoting it: it may hold a
// secret.
func urlProblem(raw string) string {
	const example = "such as https://shop.example.com/hooks/akeneo"
	if raw == "" {
		return "is required, " + example
	}
	u, err := url.Parse(raw)
	switch {
	case err != nil || u.Hostname() == "" || u.Scheme != "http" && u.Scheme != "https":
		return "must be an absolute http or https URL, " + example
	case u.User != nil:
		return "must hold no user name and no password, put them into an Authorization header under headers"
	case strings.Contains(raw, "#"):
		return "must have no fragment, cut it off at the #"
	}
	if port := u.Port(); port != "" {
		if n, err := strconv.Atoi(port); err != nil || n < 1 || n > 65535 {
			return "must have a port from 1 to 65535"
		}
	}
	return ""
}

// reserved are the headers that are not the configuration's to set, and why.
var reserved = map[string]string{
	"Connection":          "is set by HTTP itself",
	"Content-Encoding":    "is wrong, for events are sent as they are",
	"Content-Length":      "is set by HTTP itself",
	"Content-Type":        "is the event's own",
	"Expect":              "is not supported",
	"Host":                "is taken from url",
	"Idempotency-Key":     "is the event's id",
	"Keep-Alive":          "is set by HTTP itself",
	"Proxy-Authenticate":  "is between proxies",
	"Proxy-Authorization": "is between proxies",
	"Proxy-Connection":    "is between proxies",
	"Te":                  "is set by HTTP itself",
	"Trailer":             "is set by HTTP itself",
	"Transfer-Encoding":   "is set by HTTP itself",
	"Upgrade":             "is set by HTTP itself",
	"User-Agent":          "is always pimrelay",
	"X-Correlation-Id":    "is the platform's, see pass_signatures",
}

func headerFaults(headers map[string]sdk.Secret) sdk.Faults {
	var faults sdk.Faults
	spelled := map[string]string{}
	for _, name := range slices.Sorted(maps.Keys(headers)) {
		field := "headers." + name
		canonical := nethttp.CanonicalHeaderKey(name)
		switch other, twice := spelled[canonical]; {
		case !isToken(name):
			faults.Add("headers", fmt.Sprintf("%q is no header name, use letters, digits and hyphens", name))
			continue
		case twice:
			faults.Add(field, "is the same header as "+other+", keep one")
		case reserved[canonical] != "":
			faults.Add(field, reserved[canonical]+", leave it out")
		case strings.HasPrefix(canonical, signaturePrefix):
			faults.Add(field, "is the platform's, see pass_signatures")
		}
		spelled[canonical] = name
		if value := string(headers[name]); !isHeaderValue(value) {
			faults.Add(field, "must have a value of one line without control characters and without space at its ends")
		}
	}
	return faults
}

// isToken reports whether name can be a header's name (RFC 9110, section 5.1).
func isToken(name string) bool {
	return name != "" && !strings.ContainsFunc(name, func(r rune) bool {
		letter := r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9'
		return !letter && !strings.ContainsRune("!#$%&'*+-.^_`|~", r)
	})
}

// isHeaderValue reports whether value reaches the other side as it is
// (RFC 9110, section 5.5).
func isHeaderValue(value string) bool {
	if strings.Trim(value, " \t") != value {
		return false
	}
	for i := range len(value) {
		if b := value[i]; b < ' ' && b != '\t' || b == 0x7f {
			return false
		}
	}
	return true
}

// readRoots is the system's certificates and those in the file.
func readRoots(file string) (*x509.CertPool, error) {
	pem, err := os.ReadFile(file)
	if err != nil {
		var withPath *fs.PathError
		if errors.As(err, &withPath) {
			err = withPath.Err
		}
		return nil, fmt.Errorf("must name a readable file: %w", err)
	}
	roots, err := x509.SystemCertPool()
	if err != nil {
		return nil, fmt.Errorf("cannot be added to the system's certificates: %w", err)
	}
	if !roots.AppendCertsFromPEM(pem) {
		return nil, errors.New("must name a file with certificates in PEM form, it holds none")
	}
	return roots, nil
}

// minSecret is the length below which hiding a value would hide ordinary words
// of an answer and protect nothing.
const minSecret = 4

// secrets are what a destination could echo: the values of headers, with and
// without their scheme ("Bearer"), and those of the URL's query.
func (c *config) secrets() []string {
	var all []string
	for _, value := range c.Headers {
		all = append(all, string(value))
		all = append(all, strings.Fields(string(value))...)
	}
	if u, err := url.Parse(c.URL); err == nil {
		all = append(all, u.RawQuery)
		for _, values := range u.Query() {
			all = append(all, values...)
		}
	}
	all = slices.DeleteFunc(all, func(s string) bool {
		return len(s) < minSecret || slices.Contains([]string{"basic", "bearer", "digest", "token"}, strings.ToLower(s))
	})
	// The longest first, so that none is hidden only in part.
	slices.SortFunc(all, func(a, b string) int { return len(b) - len(a) })
	return slices.Compact(all)
}
