package relay

import (
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"path"
	"slices"
	"sort"
	"strings"
	"time"

	"github.com/pimrelay/pimrelay/relay/admin"
	"github.com/pimrelay/pimrelay/relay/akeneo"
	"github.com/pimrelay/pimrelay/relay/config"
	"github.com/pimrelay/pimrelay/relay/journal"
	"github.com/pimrelay/pimrelay/relay/observe"
	"github.com/pimrelay/pimrelay/relay/subscription"
	"github.com/pimrelay/pimrelay/sdk"
)

// Config is the configuration file.
type Config struct {
	// DataDir holds the journal, the state and the admin socket; one process
	// at a time uses it.
	DataDir    string               `koanf:"data_dir"`
	Listen     Listen               `koanf:"listen"`
	Sources    map[string]Source    `koanf:"sources"`
	Forwarders map[string]Forwarder `koanf:"forwarders"`
	Journal    journal.Config       `koanf:"journal"`
	Telemetry  Telemetry            `koanf:"telemetry"`
	Log        Log                  `koanf:"log"`
	// DrainTimeout is how long shutting down waits for deliveries in hand.
	DrainTimeout time.Duration `koanf:"drain_timeout"`
	// Redact takes out of a text whatever a reference of the file, such as
	// ${env:NAME}, resolved to. Load sets it.
	Redact func(string) string
}

// Source is a PIM, or a path at which an operator has subscribed by hand.
type Source struct {
	// Path is where deliveries arrive; default /hooks/<name>.
	Path string `koanf:"path"`
	// PIM is nil if the operator subscribes by hand.
	PIM         *akeneo.PIM `koanf:"pim"`
	PlatformURL string      `koanf:"platform_url"`
	// TrustedRoots is a PEM file of further authorities for the calls to
	// PIM and platform.
	TrustedRoots  string                     `koanf:"trusted_roots"`
	Subscriber    subscription.Subscriber    `koanf:"subscriber"`
	Subscriptions subscription.Subscriptions `koanf:"subscriptions"`
	Secrets       subscription.Secrets       `koanf:"secrets"`
}

// SetDefaults sets what a source has that says nothing else.
func (s *Source) SetDefaults() { s.PlatformURL = akeneo.DefaultPlatformURL }

// Telemetry is where probes and metrics are served; empty turns them off.
type Telemetry struct {
	Address string `koanf:"address"`
}

// Log is the daemon's own log, on standard error.
type Log struct {
	Level  string `koanf:"level"`
	Format string `koanf:"format"`
}

// Builtin makes the built-in forwarder of that name, or reports that there is
// none.
type Builtin func(name string, logger *slog.Logger) (sdk.Forwarder, bool)

// Defaults is the configuration of an empty file.
func Defaults() Config {
	return Config{
		DataDir:      "/var/lib/pimrelay",
		Listen:       defaultListen(),
		Journal:      journal.Defaults(),
		Telemetry:    Telemetry{Address: "127.0.0.1:9464"},
		Log:          Log{Level: "info", Format: "text"},
		DrainTimeout: 20 * time.Second,
	}
}

// EnvironmentPrefix begins the names of the environment variables that override
// the file.
const EnvironmentPrefix = "PIMRELAY_"

// Load reads and checks the configuration file at path. Everything that is
// wrong comes together, as config.Problems. environ is as os.Environ has it.
func Load(path string, environ []string, builtin Builtin) (*Config, error) {
	doc, err := config.Load(path, config.Options{Environ: environ, Prefix: EnvironmentPrefix})
	if err != nil {
		return nil, err
	}
	cfg := Defaults()
	err = doc.Decode(&cfg)
	var problems config.Problems
	if err != nil && !errors.As(err, &problems) {
		return nil, err
	}
	cfg.complete()
	if err := problems.With(doc.Problems(cfg.validate(builtin))).Err(); err != nil {
		return nil, err
	}
	cfg.Redact = doc.Redact
	return &cfg, nil
}

// complete sets the defaults that depend on names.
func (c *Config) complete() {
	for name, s := range c.Sources {
		if s.Path == "" {
			s.Path = "/hooks/" + name
		}
		c.Sources[name] = s
	}
}

// validate names everything that is wrong, by field.
func (c *Config) validate(builtin Builtin) sdk.Faults {
	var f sdk.Faults
	if c.DataDir == "" {
		f.Add("data_dir", "must be set")
	} else if err := admin.CheckDir(c.DataDir); err != nil {
		f.Add("data_dir", err.Error())
	}
	f = append(f, c.Listen.validate(c.subscribes()).Within("listen")...)
	if len(c.Sources) == 0 {
		f.Add("sources", "needs at least one source, for example catalog: {secrets: {primary: ...}}")
	}
	for _, name := range sorted(c.Sources) {
		f = append(f, c.validateSource(name).Within("sources."+name)...)
	}
	if len(c.Forwarders) == 0 {
		f.Add("forwarders", "needs at least one forwarder, for example archive: {plugin: file, config: {path: events.jsonl}}")
	}
	for _, name := range sorted(c.Forwarders) {
		lane := c.Forwarders[name]
		faults := lane.validate(builtin)
		if _, ok := c.Forwarders[lane.RenamedFrom]; ok {
			faults.Add("renamed_from", fmt.Sprintf("names forwarder %q, which still stands in the file: remove one of the two", lane.RenamedFrom))
		}
		f = append(f, faults.Within("forwarders."+name)...)
	}
	f = append(f, c.Journal.Validate().Within("journal")...)
	if c.Telemetry.Address != "" {
		checkAddress(&f, "telemetry.address", c.Telemetry.Address)
	}
	if _, err := observe.ParseLevel(c.Log.Level); err != nil {
		f.Add("log.level", err.Error())
	}
	if c.Log.Format != "text" && c.Log.Format != "json" {
		f.Add("log.format", fmt.Sprintf(`must be "text" or "json" (got %q)`, c.Log.Format))
	}
	if c.DrainTimeout < 0 || c.DrainTimeout > time.Hour {
		f.Add("drain_timeout", fmt.Sprintf("must be from 0s to 1h (got %s)", c.DrainTimeout))
	}
	return f
}

// subscribes reports whether the relay subscribes itself anywhere.
func (c *Config) subscribes() bool {
	return slices.ContainsFunc(sorted(c.Sources), func(name string) bool { return c.Sources[name].PIM != nil })
}

func (c *Config) validateSource(name string) sdk.Faults {
	s := c.Sources[name]
	var f sdk.Faults
	if clean := path.Clean("/" + s.Path); clean != s.Path || clean == "/" || strings.ContainsAny(s.Path, "?#% ") {
		f.Add("path", fmt.Sprintf("must be a path such as /hooks/%s, without a slash at its end, dot segments, query or escapes (got %q)", name, s.Path))
	}
	for _, other := range sorted(c.Sources) {
		if other < name && c.Sources[other].Path == s.Path {
			f.Add("path", fmt.Sprintf("is that of source %q, too: each needs its own", other))
		}
	}
	f = append(f, s.Secrets.Validate().Within("secrets")...)
	if s.PIM == nil {
		if s.Secrets.Primary == "" {
			f.Add("secrets.primary", "must be set, because there is no pim section: it is the secret that you gave the platform when you subscribed by hand")
		}
		if len(s.Subscriptions) > 0 {
			f.Add("subscriptions", "need a pim section: without it you subscribe by hand")
		}
		return f
	}
	f = append(f, s.PIM.Validate().Within("pim")...)
	if err := akeneo.CheckURL(s.PlatformURL); err != nil {
		f.Add("platform_url", err.Error())
	}
	f = append(f, s.Subscriber.Validate().Within("subscriber")...)
	f = append(f, s.Subscriptions.Validate().Within("subscriptions")...)
	if s.TrustedRoots != "" {
		if _, err := readRoots(s.TrustedRoots); err != nil {
			f.Add("trusted_roots", err.Error())
		}
	}
	return f
}

func checkAddress(f *sdk.Faults, field, address string) {
	host, port, err := net.SplitHostPort(address)
	if err == nil {
		_, err = net.LookupPort("tcp", port)
	}
	if err == nil && host != "" && !strings.EqualFold(host, "localhost") {
		_, err = netip.ParseAddr(host)
	}
	if err != nil {
		f.Add(field, fmt.Sprintf(`must be an IP address and a port, such as ":443" or "127.0.0.1:8080" (got %q)`, address))
	}
}

func sorted[V any](m map[string]V) []string {
	names := make([]string, 0, len(m))
	for name := range m {
		names = append(names, name)
	}
	sort.Strings(names)
	return names
}

// DataDir reads data_dir alone from the configuration file at path, whatever
// else may be wrong with it.
func DataDir(path string, environ []string) (string, error) {
	doc, err := config.Load(path, config.Options{Environ: environ, Prefix: EnvironmentPrefix})
	if err != nil {
		return "", err
	}
	cfg := Defaults()
	if err := doc.Decode(&cfg); err != nil {
		return "", fmt.Errorf("%w\n(--data-dir names the directory without the file)", err)
	}
	return cfg.DataDir, nil
}
