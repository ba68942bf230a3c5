package relay

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"slices"
	"time"

	"github.com/pimrelay/pimrelay/relay/config"
	"github.com/pimrelay/pimrelay/relay/dispatch"
	"github.com/pimrelay/pimrelay/relay/pluginhost"
	"github.com/pimrelay/pimrelay/sdk"
)

// Forwarder is one forwarder's section: what brings the events to their
// destination, and the lane that they take.
type Forwarder struct {
	// Plugin is the name of a built-in forwarder; empty if Process names
	// another one.
	Plugin string `koanf:"plugin"`
	// Isolate runs a built-in forwarder in a process of its own.
	Isolate bool `koanf:"isolate"`
	// Own is the forwarder's own configuration.
	Own map[string]any `koanf:"config"`
	pluginhost.Process
	dispatch.Config
}

// SetDefaults sets what a forwarder has that says nothing else.
func (f *Forwarder) SetDefaults() {
	f.Process.SetDefaults()
	f.Config.SetDefaults()
}

// label is what the forwarder's plugin is called in logs and tables.
func (f *Forwarder) label() string {
	if f.External() {
		return f.Process.Label()
	}
	return f.Plugin
}

// validate names everything that is wrong, by field.
func (f *Forwarder) validate(builtin Builtin) sdk.Faults {
	faults := append(f.Config.Validate(), f.Process.Validate()...)
	switch {
	case f.Plugin == "" && !f.External():
		faults.Add("plugin", "is missing: name a built-in forwarder, such as http or file, or give command or address for another one")
	case f.Plugin != "" && f.External():
		faults.Add("plugin", "is a built-in forwarder's name and stands beside command or address: keep one")
	case f.Isolate && f.External():
		faults.Add("isolate", "is for built-in forwarders: others have a process of their own anyway")
	case f.Plugin != "":
		faults = append(faults, f.checkBuiltin(builtin)...)
	}
	return faults
}

// checkBuiltin configures a built-in forwarder as the daemon will, to see
// whether it can.
func (f *Forwarder) checkBuiltin(builtin Builtin) sdk.Faults {
	forwarder, err := f.inProcess(context.Background(), builtin, slog.New(slog.DiscardHandler))
	if err == nil {
		err = forwarder.Close(context.Background())
	}
	return configFaults(err)
}

// configFaults is what is wrong with a forwarder's section when making the
// forwarder gave err.
func configFaults(err error) sdk.Faults {
	var faults sdk.Faults
	var unknown unknownPlugin
	switch {
	case err == nil:
		return nil
	case errors.As(err, &unknown):
		faults.Add("plugin", unknown.Error())
	case errors.As(err, &faults):
		return faults.Within("config")
	default:
		faults.Add("config", err.Error())
	}
	return faults
}

// unknownPlugin says that no built-in forwarder has that name.
type unknownPlugin string

func (u unknownPlugin) Error() string {
	return fmt.Sprintf("%q is no built-in forwarder: `pimrelay plugin list` shows them; command names another one", string(u))
}

// inProcess makes and configures a built-in forwarder. The error is an
// unknownPlugin, or what the forwarder says of its configuration.
func (f *Forwarder) inProcess(ctx context.Context, builtin Builtin, log *slog.Logger) (sdk.Forwarder, error) {
	forwarder, ok := builtin(f.Plugin, log)
	if !ok {
		return nil, unknownPlugin(f.Plugin)
	}
	raw, err := f.raw()
	if err != nil {
		return nil, err
	}
	return forwarder, forwarder.Configure(ctx, raw)
}

func (f *Forwarder) raw() (json.RawMessage, error) {
	if f.Own == nil {
		return json.RawMessage("{}"), nil
	}
	return json.Marshal(f.Own)
}

// Isolated is the command that runs the built-in forwarder of that name in a
// process of its own.
type Isolated func(name string) []string

// process is where the forwarder runs, if that is not in this process.
func (f *Forwarder) process(isolated Isolated) (p pluginhost.Process, ok bool) {
	p = f.Process
	if f.Isolate && isolated != nil {
		p.Command = isolated(f.Plugin)
	}
	return p, p.External()
}

// newForwarder makes and configures a lane's forwarder. A plugin is being
// started when it returns: what becomes of that, it tells itself. redact is that
// of the configuration.
func (r *Relay) newForwarder(ctx context.Context, name string, f Forwarder, redact func(string) string) (sdk.Forwarder, error) {
	logger := r.Logger.With("forwarder", name, "plugin", f.label())
	process, ok := f.process(r.Isolated)
	if address := r.Attach[name]; address != "" {
		logger.Warn("attached to a plugin that somebody else runs, for development", "address", address)
		process, ok = pluginhost.Process{Address: address, Limits: process.Limits}, true
	}
	if !ok {
		return f.inProcess(ctx, r.Builtin, logger)
	}
	raw, err := f.raw()
	if err != nil {
		return nil, err
	}
	sockets := ""
	if process.Address == "" {
		if sockets, err = r.sockets(); err != nil {
			return nil, err
		}
	}
	plugin := pluginhost.New(process, pluginhost.Options{Name: name, Directory: sockets, Redact: redact, Logger: logger, Metrics: r.pluginMetrics, Pace: r.PluginPace})
	return plugin, plugin.Configure(ctx, raw)
}

// starting waits until a plugin has started, and returns why it did not.
func starting(ctx context.Context, forwarder sdk.Forwarder) error {
	if plugin, ok := forwarder.(*pluginhost.Plugin); ok {
		return plugin.Started(ctx)
	}
	return nil
}

// PluginReport is what became of starting one forwarder's plugin.
type PluginReport struct {
	Forwarder, Plugin string
	// Runs is "command", "service" or "isolated".
	Runs string
	pluginhost.Status
	Err error
	// Health is what the plugin says of its destination: nil if that can be
	// reached, or nobody has asked.
	Health error
}

// TryPlugins starts each plugin of the configuration from the file at path that
// has a process of its own, configures it as the daemon will, and ends it again.
// With health, those that can are asked whether their destination can be reached;
// otherwise no destination is touched. The error is config.Problems with everything
// that is wrong.
func TryPlugins(ctx context.Context, path string, environ []string, cfg *Config, isolated Isolated, health bool) ([]PluginReport, error) {
	if !slices.ContainsFunc(sorted(cfg.Forwarders), func(name string) bool {
		f := cfg.Forwarders[name]
		_, ok := f.process(isolated)
		return ok
	}) {
		return nil, nil
	}
	sockets, err := os.MkdirTemp("", "pimrelay-")
	if err != nil {
		return nil, fmt.Errorf("make a directory for plugins' sockets: %w", err)
	}
	defer os.RemoveAll(sockets)
	var reports []PluginReport
	var faults sdk.Faults
	for _, name := range sorted(cfg.Forwarders) {
		f := cfg.Forwarders[name]
		process, ok := f.process(isolated)
		if !ok {
			continue
		}
		report := PluginReport{Forwarder: name, Plugin: f.label(), Runs: f.runs()}
		try(ctx, f, health, &report, pluginhost.New(process, pluginhost.Options{
			Name: name, Directory: sockets, Redact: cfg.Redact, Logger: slog.New(slog.DiscardHandler),
		}))
		if ctx.Err() != nil {
			return nil, fmt.Errorf("interrupted: %w", ctx.Err())
		}
		reports = append(reports, report)
		faults = append(faults, startFaults(&f, report.Err).Within("forwarders."+name)...)
	}
	if len(faults) == 0 {
		return reports, nil
	}
	doc, err := config.Load(path, config.Options{Environ: environ, Prefix: EnvironmentPrefix})
	if err != nil {
		return reports, err
	}
	return reports, doc.Problems(faults).Err()
}

// healthPatience is how long a plugin may take to say whether its destination can
// be reached.
const healthPatience = 10 * time.Second

// try starts and configures one plugin, fills in its report, and ends it.
func try(ctx context.Context, f Forwarder, health bool, report *PluginReport, plugin *pluginhost.Plugin) {
	raw, err := f.raw()
	if err == nil {
		err = plugin.Configure(ctx, raw)
	}
	if err == nil {
		err = plugin.Started(ctx)
	}
	report.Status = plugin.Status()
	if err == nil && health && report.Description.Health {
		patient, cancel := context.WithTimeout(ctx, healthPatience)
		defer cancel()
		report.Health = plugin.Health(patient)
	}
	report.Err = errors.Join(err, closeForwarder(plugin))
}

// runs says how a forwarder runs that is not in this process.
func (f *Forwarder) runs() string {
	switch {
	case f.Address != "":
		return "service"
	case f.Isolate:
		return "isolated"
	}
	return "command"
}

// startFaults is what is wrong with a section whose plugin did not start.
func startFaults(f *Forwarder, err error) sdk.Faults {
	var faults sdk.Faults
	if err == nil || errors.As(err, &faults) {
		return configFaults(err)
	}
	field := map[string]string{"service": "address", "isolated": "isolate", "command": "command"}[f.runs()]
	faults.Add(field, "the plugin does not start: "+err.Error())
	return faults
}
