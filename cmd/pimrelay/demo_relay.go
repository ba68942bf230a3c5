package main

import (
	"context"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"text/template"

	"github.com/pimrelay/pimrelay/plugins"
	"github.com/pimrelay/pimrelay/relay"
	"github.com/pimrelay/pimrelay/relay/akeneo/simulator"
	"github.com/pimrelay/pimrelay/relay/observe"
)

// demoConfig is the demo's configuration file. The relay reads it as it reads
// any other.
var demoConfig = template.Must(template.New("").Parse(`# The configuration of the demo. The relay subscribes itself.
data_dir: {{.Dir}}/data
listen:
  address: {{.Address}}
  public_url: {{.URL}}
  tls: {mode: files, certificate: {{.Dir}}/relay.pem, key: {{.Dir}}/relay-key.pem}
sources:
  catalog:
    pim:
      url: {{.Platform}}
      client_id: demo-client
      client_secret: demo-secret
      username: demo-user
      password: demo-password
    platform_url: {{.Platform}}
    trusted_roots: {{.Roots}}
    subscriber: {name: pimrelay demo, technical_email: ops@example.com}
    subscriptions:
      everything:
        events: {{.Events}}
    secrets: {primary: {{.Secret}}}
forwarders:
  sink:
    plugin: http
    config: {url: "{{.Sink}}", pass_signatures: true}
  archive:
    plugin: file
    config: {path: {{.Dir}}/events.jsonl}
telemetry: {address: "127.0.0.1:0"}
`))

// demoRelay is the daemon, in this process, with everything else as it would
// be on a server.
type demoRelay struct {
	daemon     *relay.Relay
	url        string
	configFile string
	eventFile  string
	logFile    string
	ended      chan struct{} // closed when the daemon has ended

	cancel context.CancelFunc
	err    error // of Run; set before ended is closed
}

func startRelay(ctx context.Context, dir string, authority *simulator.Authority, platform *demoPlatform, sink *demoSink) (*demoRelay, error) {
	listener, err := listenLoopback()
	if err != nil {
		return nil, err
	}
	r := &demoRelay{
		url: "https://" + listener.Addr().String(), ended: make(chan struct{}),
		configFile: filepath.Join(dir, "pimrelay.yaml"), eventFile: filepath.Join(dir, "events.jsonl"), logFile: filepath.Join(dir, "pimrelay.log"),
	}
	if err := errors.Join(writeCertificate(authority, dir), r.writeConfig(dir, listener.Addr().String(), platform, sink)); err != nil {
		return nil, errors.Join(err, listener.Close())
	}
	cfg, err := relay.Load(r.configFile, nil, plugins.Builtin)
	if err != nil {
		return nil, errors.Join(err, listener.Close())
	}
	log, err := os.OpenFile(r.logFile, os.O_CREATE|os.O_WRONLY|os.O_TRUNC, 0o600)
	if err != nil {
		return nil, errors.Join(err, listener.Close())
	}
	logger := observe.NewLogger(log, slog.LevelInfo, "text")
	r.daemon = relay.New(cfg, relay.Options{Version: version(), Logger: logger, Builtin: plugins.Builtin, Listener: listener})
	// The daemon is stopped in its turn, not by the signal itself.
	ctx, r.cancel = context.WithCancel(context.WithoutCancel(ctx))
	go func() {
		defer close(r.ended)
		r.err = errors.Join(r.daemon.Run(ctx), log.Close())
	}()
	select {
	case <-r.daemon.Opened():
		return r, nil
	case <-r.ended:
		return nil, fmt.Errorf("the relay did not start: %w", r.err)
	}
}

func (r *demoRelay) writeConfig(dir, address string, platform *demoPlatform, sink *demoSink) error {
	file, err := os.OpenFile(r.configFile, os.O_CREATE|os.O_WRONLY|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	err = demoConfig.Execute(file, map[string]any{
		"Dir": dir, "Address": address, "URL": r.url, "Platform": platform.url, "Roots": platform.rootFile, "Sink": sink.url,
		"Secret": demoSecret, "Events": `["com.akeneo.pim.v1.*", "com.akeneo.pim.v1.asset.updated.delta", "com.akeneo.pim.v1.product.updated.delta", "com.akeneo.pim.v1.product-model.updated.delta"]`,
	})
	return errors.Join(err, file.Close())
}

func writeCertificate(authority *simulator.Authority, dir string) error {
	certificate, err := authority.Issue("127.0.0.1", "localhost")
	if err != nil {
		return err
	}
	key, err := x509.MarshalPKCS8PrivateKey(certificate.PrivateKey)
	if err != nil {
		return err
	}
	return errors.Join(
		os.WriteFile(filepath.Join(dir, "relay.pem"), pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: certificate.Certificate[0]}), 0o600),
		os.WriteFile(filepath.Join(dir, "relay-key.pem"), pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: key}), 0o600))
}

// failed is the daemon's error if it has ended.
func (r *demoRelay) failed() error {
	select {
	case <-r.ended:
		return fmt.Errorf("the relay ended: %w", r.err)
	default:
		return nil
	}
}

func (r *demoRelay) stop() error {
	r.cancel()
	<-r.ended
	return r.err
}
