package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"

	"github.com/spf13/cobra"

	"github.com/pimrelay/pimrelay/relay/akeneo/simulator"
)

// simulation is what the flags of `pimrelay simulate` say.
type simulation struct {
	options         simulator.Options
	listen          string
	tls             bool
	tlsCert, tlsKey string
	ca              string
}

func newSimulateCommand() *cobra.Command {
	var s simulation
	cmd := &cobra.Command{
		Use:   "simulate",
		Short: "Run a simulated Akeneo Event Platform and PIM",
		Long: `Run a simulated Akeneo Event Platform, and the PIM it belongs to, at one address.

It takes subscriptions as the platform does and delivers signed events to them.
POST /simulator/events lets events happen, GET /simulator/report says what became
of them. Destinations must be https with a certificate that verifies; see --ca
and --insecure-destinations.`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			s.options.Logger = slog.New(slog.NewTextHandler(cmd.ErrOrStderr(), nil))
			return s.run(cmd.Context(), cmd.OutOrStdout())
		},
	}
	flags, o := cmd.Flags(), &s.options
	flags.StringVar(&s.listen, "listen", "127.0.0.1:9000", "address to listen at")
	flags.StringVar(&o.Connection.ClientID, "client-id", "demo-client", "client id of the PIM's connection")
	flags.StringVar(&o.Connection.ClientSecret, "client-secret", "demo-secret", "client secret of the PIM's connection")
	flags.StringVar(&o.Connection.Username, "username", "demo-user", "user name of the PIM's connection")
	flags.StringVar(&o.Connection.Password, "password", "demo-password", "password of the PIM's connection")
	flags.Float64Var(&o.Speed, "speed", 1, "seconds of platform time in a second: token lives, retries, activation")
	flags.DurationVar(&o.ActivationDelay, "activation-delay", simulator.DefaultActivationDelay,
		"platform time until a subscription or its change takes effect")
	flags.Float64Var(&o.Rate, "rate", 0, "events fired per second all the time, every type in turn")
	flags.StringVar(&s.ca, "ca", "", "PEM file with further authorities that destinations may have their certificates from")
	flags.BoolVar(&o.InsecureDestinations, "insecure-destinations", false, "allow destinations with plain HTTP or unverified certificates")
	flags.BoolVar(&s.tls, "tls", false, "serve HTTPS, with a certificate made on the spot unless --tls-cert is given")
	flags.StringVar(&s.tlsCert, "tls-cert", "", "PEM file with the certificate chain to serve HTTPS with")
	flags.StringVar(&s.tlsKey, "tls-key", "", "PEM file with its key")
	cmd.MarkFlagsRequiredTogether("tls-cert", "tls-key")
	return cmd
}

// run serves until ctx ends and writes the report then.
func (s *simulation) run(ctx context.Context, out io.Writer) (err error) {
	if s.options.Roots, err = s.roots(); err != nil {
		return err
	}
	sim, err := simulator.New(s.options)
	if err != nil {
		return err
	}
	listener, err := net.Listen("tcp", s.listen)
	if err != nil {
		return fmt.Errorf("%w: choose another address with --listen", err)
	}
	baseURL, caFile := "http://"+reachable(listener.Addr()), ""
	if s.tls || s.tlsCert != "" {
		config, file, err := s.tlsConfig()
		if err != nil {
			return errors.Join(err, listener.Close())
		}
		if file != "" {
			defer os.Remove(file)
		}
		listener = tls.NewListener(listener, config)
		baseURL, caFile = "https://"+reachable(listener.Addr()), file
	}
	if caFile != "" {
		fmt.Fprintf(out, "The authority of the certificate is in %s until the end.\n", caFile)
	}
	if err := sim.WriteGuide(out, baseURL, caFile); err != nil {
		return errors.Join(err, listener.Close())
	}
	err = sim.Serve(ctx, listener)
	fmt.Fprintln(out)
	return errors.Join(err, sim.Report().WriteTable(out))
}

// roots are the system's authorities with those of --ca; nil without --ca, which
// means the system's.
func (s *simulation) roots() (*x509.CertPool, error) {
	if s.ca == "" {
		return nil, nil
	}
	pem, err := os.ReadFile(s.ca)
	if err != nil {
		return nil, fmt.Errorf("read --ca: %w", err)
	}
	pool, err := x509.SystemCertPool()
	if err != nil {
		return nil, fmt.Errorf("read the system's certificate authorities: %w", err)
	}
	if !pool.AppendCertsFromPEM(pem) {
		return nil, fmt.Errorf("--ca %s holds no certificate in PEM form", s.ca)
	}
	return pool, nil
}

// tlsConfig loads the certificate, or makes one and writes its authority to a
// temporary file.
func (s *simulation) tlsConfig() (config *tls.Config, caFile string, err error) {
	if s.tlsCert != "" {
		pair, err := tls.LoadX509KeyPair(s.tlsCert, s.tlsKey)
		if err != nil {
			return nil, "", fmt.Errorf("load --tls-cert and --tls-key: %w", err)
		}
		return serving(pair), "", nil
	}
	authority, err := simulator.NewAuthority()
	if err != nil {
		return nil, "", err
	}
	hosts := []string{"localhost", "127.0.0.1", "::1"}
	if host, _, err := net.SplitHostPort(s.listen); err == nil && host != "" {
		hosts = append(hosts, host)
	}
	if name, err := os.Hostname(); err == nil {
		hosts = append(hosts, name)
	}
	pair, err := authority.Issue(hosts...)
	if err != nil {
		return nil, "", err
	}
	file, err := os.CreateTemp("", "pimrelay-simulator-ca-*.pem")
	if err != nil {
		return nil, "", fmt.Errorf("keep the certificate authority: %w", err)
	}
	_, err = file.Write(authority.PEM())
	if err := errors.Join(err, file.Close()); err != nil {
		return nil, "", errors.Join(fmt.Errorf("keep the certificate authority: %w", err), os.Remove(file.Name()))
	}
	return serving(pair), file.Name(), nil
}

func serving(pair tls.Certificate) *tls.Config {
	return &tls.Config{MinVersion: tls.VersionTLS12, Certificates: []tls.Certificate{pair}}
}

// reachable is an address as a client on this machine can name it.
func reachable(addr net.Addr) string {
	host, port, err := net.SplitHostPort(addr.String())
	if ip := net.ParseIP(host); err != nil || ip != nil && !ip.IsUnspecified() {
		return addr.String()
	}
	return net.JoinHostPort("localhost", port)
}
