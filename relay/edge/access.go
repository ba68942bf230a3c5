package edge

import (
	"crypto/sha256"
	"crypto/subtle"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strings"
)

// Access says whose deliveries the door takes. Whoever is kept out is answered
// like everybody else: 401 without signature headers, 429 with them, because
// they may be the platform's after all.
type Access struct {
	// AllowFrom are the networks that deliveries may come from; empty for all.
	AllowFrom []netip.Prefix
	// TrustedProxies are the networks of proxies in front of the door. Of a
	// connection from one of them, the client's address is the last one in
	// X-Forwarded-For that is no trusted proxy's.
	TrustedProxies []netip.Prefix
	// RequireHeaders are headers, by name, that deliveries must carry once
	// with exactly that value.
	RequireHeaders map[string]string
}

// SetAccess replaces what New was given. It is safe for concurrent use; requests
// that have begun may still see the former.
func (s *Server) SetAccess(a Access) { s.access.Store(newAccess(a)) }

// access is an Access that is ready to be asked.
type access struct {
	Access
	required []requiredHeader
}

// requiredHeader holds a digest, so that comparing does not tell the length.
type requiredHeader struct {
	name   string // canonical
	digest [sha256.Size]byte
}

func newAccess(a Access) *access {
	ready := &access{Access: a}
	for name, value := range a.RequireHeaders {
		ready.required = append(ready.required, requiredHeader{http.CanonicalHeaderKey(name), sha256.Sum256([]byte(value))})
	}
	return ready
}

// allows reports whether deliveries may come from an address. One that is not
// known may not, unless all may.
func (a *access) allows(client netip.Addr) bool {
	return len(a.AllowFrom) == 0 || contain(a.AllowFrom, client)
}

// proxy reports whether the address is that of a trusted proxy.
func (a *access) proxy(peer netip.Addr) bool { return contain(a.TrustedProxies, peer) }

func contain(networks []netip.Prefix, addr netip.Addr) bool {
	return slices.ContainsFunc(networks, func(p netip.Prefix) bool { return p.Contains(addr) })
}

// missing is the name of a required header that the request does not have as it
// must, or "".
func (a *access) missing(h http.Header) string {
	for _, required := range a.required {
		values := h[required.name]
		if len(values) != 1 {
			return required.name
		}
		if digest := sha256.Sum256([]byte(values[0])); subtle.ConstantTimeCompare(digest[:], required.digest[:]) != 1 {
			return required.name
		}
	}
	return ""
}

// client is the address that a request comes from; not valid if it cannot be
// known.
func (a *access) client(r *http.Request) netip.Addr {
	peer := hostAddr(r.RemoteAddr)
	if !a.proxy(peer) {
		return peer
	}
	return a.forwarded(peer, r.Header["X-Forwarded-For"])
}

// forwarded is the client's address as the trusted proxies tell it. Each of them
// appends the address that it sees; what stands before the last one that is not
// theirs was written by strangers.
func (a *access) forwarded(peer netip.Addr, headers []string) netip.Addr {
	client := peer
	for _, header := range slices.Backward(headers) {
		for more := true; more; {
			var hop string
			if i := strings.LastIndexByte(header, ','); i >= 0 {
				header, hop = header[:i], header[i+1:]
			} else {
				hop, more = header, false
			}
			client = hostAddr(strings.TrimSpace(hop))
			if !client.IsValid() || !a.proxy(client) {
				return client
			}
		}
	}
	return client
}

// hostAddr is the address in "192.0.2.1", "192.0.2.1:80", "2001:db8::1" or
// "[2001:db8::1]:80"; not valid if there is none.
func hostAddr(s string) netip.Addr {
	if len(s) > 64 {
		return netip.Addr{}
	}
	if host, _, err := net.SplitHostPort(s); err == nil {
		s = host
	}
	addr, err := netip.ParseAddr(strings.Trim(s, "[]"))
	if err != nil {
		return netip.Addr{}
	}
	return addr.Unmap().WithZone("")
}
