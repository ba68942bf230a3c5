package certificates

import (
	"context"
	"crypto/tls"
	"errors"
	"net/http"
	"path"
	"strings"
	"time"

	"github.com/caddyserver/certmagic"
	"github.com/mholt/acmez/v3/acme"
)

// forgetAccount looks, when the authority has refused something as unauthorized,
// whether it is the account that it refuses: one that was deactivated or revoked
// stays so for ever, and nothing would ever be issued again. Then the account is
// deleted here, so that the next attempt registers another. It reports whether
// it did.
func (a *ACME) forgetAccount(ctx context.Context, cause error) bool {
	var problem acme.Problem
	if !errors.As(cause, &problem) || problem.Type != acme.ProblemTypeUnauthorized {
		return false
	}
	users := path.Join("acme", certmagic.StorageKeys.Safe(a.issuer.IssuerKey()), "users")
	keys, err := a.storage.List(ctx, users, true)
	if err != nil {
		return false
	}
	forgotten := false
	for _, key := range keys {
		if strings.HasSuffix(key, ".key") && a.refused(ctx, key) {
			if err := a.storage.Delete(ctx, path.Dir(key)); err != nil {
				a.options.Logger.Error("account not deleted", "err", err)
				continue
			}
			a.options.Logger.Error("the certificate authority no longer accepts the ACME account, it is forgotten", "account", path.Base(path.Dir(key)))
			forgotten = true
		}
	}
	return forgotten
}

// refused asks the authority whether it still accepts the account whose private
// key is stored under that key. When in doubt it does.
func (a *ACME) refused(ctx context.Context, key string) bool {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	keyPEM, err := a.storage.Load(ctx, key)
	if err != nil {
		return false
	}
	private, err := certmagic.PEMDecodePrivateKey(keyPEM)
	if err != nil {
		return false
	}
	client := acme.Client{Directory: a.options.Directory, HTTPClient: a.client()}
	account, err := client.GetAccount(ctx, acme.Account{PrivateKey: private})
	var problem acme.Problem
	if errors.As(err, &problem) {
		return problem.Type == acme.ProblemTypeUnauthorized || problem.Type == acme.ProblemTypeAccountDoesNotExist
	}
	return err == nil && account.Status != acme.StatusValid
}

// client is for the few calls to the authority that certmagic does not make.
func (a *ACME) client() *http.Client {
	transport := http.DefaultTransport.(*http.Transport).Clone()
	transport.DisableKeepAlives = true
	if a.options.TrustedRoots != nil {
		transport.TLSClientConfig = &tls.Config{RootCAs: a.options.TrustedRoots, MinVersion: tls.VersionTLS12}
	}
	return &http.Client{Transport: transport, Timeout: 30 * time.Second}
}

// Ask reports whether the authority's directory answers as it must.
func (a *ACME) Ask(ctx context.Context) error {
	client := acme.Client{Directory: a.options.Directory, HTTPClient: a.client()}
	directory, err := client.GetDirectory(ctx)
	if err == nil && (directory.NewAccount == "" || directory.NewOrder == "") {
		err = errors.New("it names no place for accounts and orders")
	}
	return err
}
