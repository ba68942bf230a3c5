package edge

import (
	"crypto/tls"
	"encoding/pem"
	"fmt"
	"os"
	"strings"
	"time"
)

// LoadTLS reads a certificate with its chain and its private key from files in
// PEM form, checks that they fit together and are valid now, and returns a
// configuration that presents them to every client, also to one that names no
// host. TLS 1.2 is the oldest version it speaks.
func LoadTLS(certFile, keyFile string) (*tls.Config, error) {
	cert, err := loadCertificate(certFile, keyFile)
	if err != nil {
		return nil, err
	}
	return &tls.Config{
		MinVersion: tls.VersionTLS12,
		NextProtos: []string{"h2", "http/1.1"},
		GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) {
			return cert, nil
		},
	}, nil
}

func loadCertificate(certFile, keyFile string) (*tls.Certificate, error) {
	certPEM, err := os.ReadFile(certFile)
	if err != nil {
		return nil, fmt.Errorf("read the certificate: %w", err)
	}
	keyPEM, err := os.ReadFile(keyFile)
	if err != nil {
		return nil, fmt.Errorf("read the private key: %w", err)
	}
	if block, _ := pem.Decode(certPEM); block == nil {
		return nil, fmt.Errorf("certificate %s: no PEM block found: the file must hold the certificate and its chain in PEM form", certFile)
	}
	if block, _ := pem.Decode(keyPEM); block == nil {
		return nil, fmt.Errorf("private key %s: no PEM block found: the file must hold the key in PEM form", keyFile)
	}
	if encrypted(keyPEM) {
		return nil, fmt.Errorf("private key %s: is encrypted: store it without a passphrase, readable by the relay only", keyFile)
	}
	cert, err := tls.X509KeyPair(certPEM, keyPEM)
	if err != nil {
		return nil, fmt.Errorf("certificate %s with private key %s: %w: give the key that the certificate was issued for", certFile, keyFile, err)
	}
	if err := checkPeriod(certFile, &cert, time.Now()); err != nil {
		return nil, err
	}
	return &cert, nil
}

// encrypted reports whether a key in PEM form needs a passphrase.
func encrypted(keyPEM []byte) bool {
	for block, rest := pem.Decode(keyPEM); block != nil; block, rest = pem.Decode(rest) {
		if block.Type == "ENCRYPTED PRIVATE KEY" || strings.Contains(block.Headers["Proc-Type"], "ENCRYPTED") {
			return true
		}
	}
	return false
}

// checkPeriod reports a certificate that clients would refuse at now.
func checkPeriod(certFile string, cert *tls.Certificate, now time.Time) error {
	leaf := cert.Leaf
	switch {
	case now.After(leaf.NotAfter):
		return fmt.Errorf("certificate %s: expired on %s: renew it", certFile, leaf.NotAfter.UTC().Format(time.RFC3339))
	case now.Before(leaf.NotBefore):
		return fmt.Errorf("certificate %s: not valid before %s: use the current one, or set this machine's clock", certFile, leaf.NotBefore.UTC().Format(time.RFC3339))
	}
	return nil
}
