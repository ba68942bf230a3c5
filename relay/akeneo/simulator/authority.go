package simulator

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"net"
	"time"
)

// authorityLife is how long a self-made authority and what it issues are valid.
const authorityLife = 30 * 24 * time.Hour

// Authority is a certificate authority made on the spot, so that the simulator
// can be reached over HTTPS on a machine that has no certificate. Its key never
// leaves the process.
type Authority struct {
	certificate *x509.Certificate
	key         *ecdsa.PrivateKey
}

// NewAuthority makes an authority that is valid for 30 days.
func NewAuthority() (*Authority, error) {
	draft := &x509.Certificate{
		Subject:               pkix.Name{CommonName: "pimrelay simulator authority"},
		KeyUsage:              x509.KeyUsageCertSign,
		IsCA:                  true,
		BasicConstraintsValid: true,
		MaxPathLenZero:        true,
	}
	key, der, err := issue(draft, nil)
	if err != nil {
		return nil, fmt.Errorf("make a certificate authority: %w", err)
	}
	certificate, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, fmt.Errorf("read the certificate just made: %w", err)
	}
	return &Authority{certificate, key}, nil
}

// PEM is the authority's own certificate, for those who shall trust it.
func (a *Authority) PEM() []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: a.certificate.Raw})
}

// Issue makes a certificate for a server that is reached by the given names and
// addresses.
func (a *Authority) Issue(hosts ...string) (tls.Certificate, error) {
	draft := &x509.Certificate{
		// OpenSSL takes a certificate for self-signed when it has the name of
		// its issuer.
		Subject:     pkix.Name{CommonName: "pimrelay simulator server"},
		KeyUsage:    x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	for _, host := range hosts {
		if ip := net.ParseIP(host); ip != nil {
			draft.IPAddresses = append(draft.IPAddresses, ip)
		} else {
			draft.DNSNames = append(draft.DNSNames, host)
		}
	}
	key, der, err := issue(draft, a)
	if err != nil {
		return tls.Certificate{}, fmt.Errorf("issue a certificate for %q: %w", hosts, err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, nil
}

// issue signs a certificate over a new key; by itself when there is no issuer.
func issue(draft *x509.Certificate, by *Authority) (*ecdsa.PrivateKey, []byte, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, nil, err
	}
	draft.NotBefore = time.Now().Add(-time.Hour) // for clocks that are a little behind
	draft.NotAfter = time.Now().Add(authorityLife)
	parent, signer := draft, key
	if by != nil {
		parent, signer = by.certificate, by.key
	}
	der, err := x509.CreateCertificate(rand.Reader, draft, parent, &key.PublicKey, signer)
	return key, der, err
}
