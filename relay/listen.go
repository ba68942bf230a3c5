package relay

import (
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/pimrelay/pimrelay/relay/akeneo"
	"github.com/pimrelay/pimrelay/relay/edge"
	"github.com/pimrelay/pimrelay/sdk"
)

// Listen is the door.
type Listen struct {
	Address string `koanf:"address"`
	// PublicURL is the address that the platform is told; a subscription's
	// path is appended.
	PublicURL string   `koanf:"public_url"`
	TLS       TLS      `koanf:"tls"`
	MaxBody   sdk.Size `koanf:"max_body"`
	// AllowFrom are the networks that deliveries may come from; none stands
	// for all. TrustedProxies are those of proxies whose X-Forwarded-For is
	// believed.
	AllowFrom      []string `koanf:"allow_from"`
	TrustedProxies []string `koanf:"trusted_proxies"`
	// RequireHeaders are headers that deliveries must carry, by name.
	RequireHeaders map[string]sdk.Secret `koanf:"require_headers"`
	Limits         Limits                `koanf:"limits"`
}

// Limits bound what strangers can make the door hold.
type Limits struct {
	Headers               sdk.Size      `koanf:"headers"`
	HeaderTimeout         time.Duration `koanf:"header_timeout"`
	IdleTimeout           time.Duration `koanf:"idle_timeout"`
	ConcurrentRequests    int           `koanf:"concurrent_requests"`
	BodiesInFlight        sdk.Size      `koanf:"bodies_in_flight"`
	ConnectionsPerAddress int           `koanf:"connections_per_address"`
}

func defaultListen() Listen {
	return Listen{Address: ":443", MaxBody: 10 << 20, Limits: Limits{
		Headers: 64 << 10, HeaderTimeout: 10 * time.Second, IdleTimeout: 620 * time.Second, ConcurrentRequests: 1024, BodiesInFlight: 64 << 20,
	}}
}

// options are what the door is to do, without those it works with.
func (l *Listen) options() edge.Options {
	return edge.Options{
		Access: l.access(), MaxBody: int64(l.MaxBody), MaxHeaderBytes: int(l.Limits.Headers), ReadHeaderTimeout: l.Limits.HeaderTimeout,
		IdleTimeout: l.Limits.IdleTimeout, MaxConcurrentRequests: l.Limits.ConcurrentRequests, MaxBodiesInFlight: int64(l.Limits.BodiesInFlight),
		ConnectionsPerAddress: l.Limits.ConnectionsPerAddress,
	}
}

// access is who may deliver. The networks have been checked.
func (l *Listen) access() (a edge.Access) {
	a.AllowFrom, _ = networks(l.AllowFrom)
	a.TrustedProxies, _ = networks(l.TrustedProxies)
	for name, value := range l.RequireHeaders {
		if a.RequireHeaders == nil {
			a.RequireHeaders = make(map[string]string)
		}
		a.RequireHeaders[name] = string(value)
	}
	return a
}

// networks reads networks, such as 192.0.2.0/24, and single addresses.
func networks(all []string) (prefixes []netip.Prefix, err error) {
	for _, s := range all {
		prefix, err := netip.ParsePrefix(s)
		if err != nil {
			var addr netip.Addr
			if addr, err = netip.ParseAddr(s); err != nil {
				return nil, fmt.Errorf("must be networks such as 192.0.2.0/24, or addresses (got %q)", s)
			}
			prefix = netip.PrefixFrom(addr, addr.BitLen())
		}
		prefixes = append(prefixes, prefix.Masked())
	}
	return prefixes, nil
}

// The values of tls.mode.
const (
	tlsACME  = "acme"
	tlsFiles = "files"
	tlsOff   = "off"
)

// TLS says who terminates HTTPS: this process with a certificate that it obtains
// or that is in files, or a proxy in front of it.
type TLS struct {
	Mode string `koanf:"mode"`

	// Of mode files.

	Certificate string `koanf:"certificate"`
	Key         string `koanf:"key"`

	// Of mode acme.

	// Email is given to the certificate authority for its notices.
	Email string `koanf:"email"`
	// Domains need a certificate besides the host of public_url.
	Domains []string `koanf:"domains"`
	// Directory is the authority's; empty stands for Let's Encrypt.
	Directory string `koanf:"directory"`
	// TrustedRoots is a PEM file of further authorities for the calls to it.
	TrustedRoots string `koanf:"trusted_roots"`
	Profile      string `koanf:"profile"`
	// HTTPAddress is a second listener for HTTP-01 challenges and nothing
	// else.
	HTTPAddress string `koanf:"http_address"`
	// Challenges are tls-alpn-01 and http-01; empty stands for the first, and
	// for the second if there is an HTTPAddress.
	Challenges      []string        `koanf:"challenges"`
	ExternalAccount ExternalAccount `koanf:"external_account"`
}

// ExternalAccount binds the ACME account to one at the authority.
type ExternalAccount struct {
	KeyID  string     `koanf:"key_id"`
	MACKey sdk.Secret `koanf:"mac_key"`
}

const (
	challengeALPN = "tls-alpn-01"
	challengeHTTP = "http-01"
)

// uses reports whether a challenge is to be answered.
func (t *TLS) uses(challenge string) bool {
	if len(t.Challenges) == 0 {
		return challenge == challengeALPN || t.HTTPAddress != ""
	}
	return slices.Contains(t.Challenges, challenge)
}

// hosts are the names that need a certificate, that of public_url first.
func (l *Listen) hosts() []string {
	var all []string
	for _, host := range append([]string{l.host()}, l.TLS.Domains...) {
		if host = strings.ToLower(host); host != "" && !slices.Contains(all, host) {
			all = append(all, host)
		}
	}
	return all
}

// host is that of public_url.
func (l *Listen) host() string {
	u, err := url.Parse(l.PublicURL)
	if err != nil {
		return ""
	}
	return u.Hostname()
}

func (l *Listen) validate(publicNeeded bool) sdk.Faults {
	var f sdk.Faults
	checkAddress(&f, "address", l.Address)
	switch {
	case l.PublicURL != "":
		if err := akeneo.CheckURL(l.PublicURL); err != nil {
			f.Add("public_url", err.Error())
		}
	case publicNeeded:
		f.Add("public_url", "must be set, because a source has a pim: it is the address that the platform delivers to")
	case l.TLS.Mode == tlsACME:
		f.Add("public_url", "must be set, because tls.mode is acme: its host is what the certificate is for")
	}
	if host := l.host(); l.TLS.Mode == tlsACME && host != "" && !isHost(host) {
		f.Add("public_url", fmt.Sprintf("must have a host that a certificate can be for, in ASCII and without a dot at its end (got %q)", host))
	}
	f = append(f, l.TLS.validate().Within("tls")...)
	for field, all := range map[string][]string{"allow_from": l.AllowFrom, "trusted_proxies": l.TrustedProxies} {
		if _, err := networks(all); err != nil {
			f.Add(field, err.Error())
		}
	}
	for name, value := range l.RequireHeaders {
		if value == "" || !token.MatchString(name) {
			f.Add("require_headers", fmt.Sprintf("must be header names with values (got %q)", name))
		}
	}
	f = append(f, l.Limits.validate(l.MaxBody).Within("limits")...)
	if l.MaxBody < 1<<10 || l.MaxBody > 32<<20 {
		f.Add("max_body", fmt.Sprintf("must be from 1KiB to 32MiB (got %s)", l.MaxBody))
	}
	return f
}

// token is what a header's name may be (RFC 9110, section 5.6.2).
var token = regexp.MustCompile("^[!#$%&'*+.^_`|~0-9A-Za-z-]+$")

func (l *Limits) validate(maxBody sdk.Size) sdk.Faults {
	var f sdk.Faults
	if l.Headers < 4<<10 || l.Headers > 1<<20 {
		f.Add("headers", fmt.Sprintf("must be from 4KiB to 1MiB (got %s)", l.Headers))
	}
	if l.HeaderTimeout < time.Second || l.HeaderTimeout > time.Minute {
		f.Add("header_timeout", fmt.Sprintf("must be from 1s to 1m (got %s)", l.HeaderTimeout))
	}
	if l.IdleTimeout < 10*time.Second || l.IdleTimeout > time.Hour {
		f.Add("idle_timeout", fmt.Sprintf("must be from 10s to 1h, and longer than that of a proxy in front (got %s)", l.IdleTimeout))
	}
	if l.ConcurrentRequests < 1 || l.ConcurrentRequests > 100_000 {
		f.Add("concurrent_requests", fmt.Sprintf("must be from 1 to 100000 (got %d)", l.ConcurrentRequests))
	}
	if l.BodiesInFlight <= maxBody || l.BodiesInFlight > 1<<30 {
		f.Add("bodies_in_flight", fmt.Sprintf("must be above max_body, which is %s, and at most 1GiB (got %s)", maxBody, l.BodiesInFlight))
	}
	if l.ConnectionsPerAddress < 0 {
		f.Add("connections_per_address", fmt.Sprintf("must not be below 0 (got %d)", l.ConnectionsPerAddress))
	}
	return f
}

func (t *TLS) validate() sdk.Faults {
	var f sdk.Faults
	switch t.Mode {
	case tlsFiles:
		for field, file := range map[string]string{"certificate": t.Certificate, "key": t.Key} {
			if file == "" {
				f.Add(field, "must name a PEM file, because tls.mode is files")
			}
		}
	case tlsACME:
		f = t.validateACME()
	case tlsOff:
	default:
		f.Add("mode", fmt.Sprintf(`must be "acme" (a certificate is obtained), "files" (it is in files) or "off" (a proxy in front terminates TLS) (got %q)`, t.Mode))
		return f
	}
	if t.Mode != tlsFiles && (t.Certificate != "" || t.Key != "") {
		f.Add("mode", fmt.Sprintf("is %s, and yet a certificate or key is given: use files, or remove them", t.Mode))
	}
	if t.Mode != tlsACME {
		for field, set := range map[string]bool{
			"email": t.Email != "", "domains": len(t.Domains) > 0, "directory": t.Directory != "", "trusted_roots": t.TrustedRoots != "", "profile": t.Profile != "",
			"http_address": t.HTTPAddress != "", "challenges": len(t.Challenges) > 0, "external_account": t.ExternalAccount != ExternalAccount{},
		} {
			if set {
				f.Add(field, fmt.Sprintf("is for tls.mode acme, and the mode is %s: use acme, or remove it", t.Mode))
			}
		}
	}
	return f
}

func (t *TLS) validateACME() sdk.Faults {
	var f sdk.Faults
	if t.Email != "" && !strings.Contains(t.Email, "@") {
		f.Add("email", fmt.Sprintf("must be an address (got %q)", t.Email))
	}
	for _, domain := range t.Domains {
		if !isHost(domain) {
			f.Add("domains", fmt.Sprintf("must be host names such as events.example.com, in ASCII, without wildcard, scheme or port (got %q)", domain))
		}
	}
	if t.Directory != "" {
		if err := akeneo.CheckURL(t.Directory); err != nil {
			f.Add("directory", err.Error())
		}
	}
	if t.TrustedRoots != "" {
		if _, err := readRoots(t.TrustedRoots); err != nil {
			f.Add("trusted_roots", err.Error())
		}
	}
	if t.HTTPAddress != "" {
		checkAddress(&f, "http_address", t.HTTPAddress)
	}
	for _, challenge := range t.Challenges {
		if challenge != challengeALPN && challenge != challengeHTTP {
			f.Add("challenges", fmt.Sprintf("must be tls-alpn-01 or http-01 (got %q)", challenge))
		}
	}
	switch {
	case t.HTTPAddress == "" && slices.Contains(t.Challenges, challengeHTTP):
		f.Add("challenges", `has http-01, which needs http_address, usually ":80"`)
	case t.HTTPAddress != "" && !t.uses(challengeHTTP):
		f.Add("http_address", "is for http-01, which is not among the challenges: add it, or remove the address")
	}
	if (t.ExternalAccount.KeyID == "") != (t.ExternalAccount.MACKey == "") {
		f.Add("external_account", "must have both key_id and mac_key")
	}
	return f
}

// hostName is a DNS name in its ASCII form.
var hostName = regexp.MustCompile(`^[0-9A-Za-z_]([0-9A-Za-z_-]*[0-9A-Za-z_])?(\.[0-9A-Za-z_]([0-9A-Za-z_-]*[0-9A-Za-z_])?)*$`)

// isHost reports whether a certificate for exactly that host can be asked for.
func isHost(name string) bool {
	if _, err := netip.ParseAddr(name); err == nil {
		return true
	}
	return hostName.MatchString(name)
}

// tcpAddress is an address from the configuration; the host may be empty.
func tcpAddress(address string) (*net.TCPAddr, error) { return net.ResolveTCPAddr("tcp", address) }
