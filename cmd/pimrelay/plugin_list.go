package main

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"os"
	"slices"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/pimrelay/pimrelay/plugins"
	"github.com/pimrelay/pimrelay/relay"
	"github.com/pimrelay/pimrelay/sdk"
)

// listedPlugin is a plugin as `plugin list` shows it.
type listedPlugin struct {
	// Forwarder is the section of the configuration file, empty for a
	// built-in as such.
	Forwarder string `json:"forwarder,omitempty"`
	Name      string `json:"name"`
	Version   string `json:"version,omitempty"`
	// Runs is "built-in", "command", "service" or "isolated".
	Runs string `json:"runs"`
	// Batches says that it takes several events a call; the limits are 0 if
	// there are none, or they depend on the configuration.
	Batches    bool            `json:"batches"`
	MaxEvents  int             `json:"max_events,omitempty"`
	MaxBytes   int             `json:"max_bytes,omitempty"`
	KeepsOrder bool            `json:"keeps_order"`
	Health     bool            `json:"health"`
	Schema     json.RawMessage `json:"config_schema,omitempty"`
	Problem    string          `json:"problem,omitempty"`
}

func newPluginListCommand() *cobra.Command {
	var file string
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "list",
		Short: "Show the built-in forwarders and, with -c, the plugins that the file names: version, capabilities, configuration keys",
		Args:  noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			all := builtinPlugins()
			if file != "" {
				configured, err := configuredPlugins(cmd.Context(), file)
				if err != nil {
					return err
				}
				all = append(all, configured...)
			}
			if asJSON {
				encoder := json.NewEncoder(cmd.OutOrStdout())
				encoder.SetIndent("", "  ")
				return encoder.Encode(all)
			}
			return printPlugins(cmd.OutOrStdout(), all)
		},
	}
	cmd.Flags().StringVarP(&file, "config", "c", "", "configuration file whose plugins are started, asked and ended, too")
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON, with each plugin's JSON Schema")
	return cmd
}

func builtinPlugins() (all []listedPlugin) {
	for _, name := range plugins.Names() {
		forwarder, _ := plugins.Builtin(name, slog.New(slog.DiscardHandler))
		listed := listedPlugin{Name: name, Version: version(), Runs: "built-in"}
		if d, ok := forwarder.(sdk.Describer); ok {
			listed.Schema, listed.KeepsOrder = d.Describe().ConfigSchema, d.Describe().KeepsOrder
		}
		_, listed.Batches = forwarder.(sdk.BatchLimiter)
		_, listed.Health = forwarder.(sdk.HealthChecker)
		all = append(all, listed)
	}
	return all
}

// configuredPlugins are those of the file that run in processes of their own.
// One that does not start is listed with its problem.
func configuredPlugins(ctx context.Context, file string) (all []listedPlugin, err error) {
	cfg, err := load(file)
	if err != nil {
		return nil, err
	}
	reports, err := relay.TryPlugins(ctx, file, os.Environ(), cfg, isolated, false)
	if err != nil && !slices.ContainsFunc(reports, func(r relay.PluginReport) bool { return r.Err != nil }) {
		return nil, err
	}
	for _, r := range reports {
		d := r.Description
		listed := listedPlugin{
			Forwarder: r.Forwarder, Name: cmp.Or(d.Name, r.Plugin), Version: d.Version, Runs: r.Runs,
			Batches: d.Batches, MaxEvents: d.Limits.Events, MaxBytes: d.Limits.Bytes, KeepsOrder: d.KeepsOrder, Health: d.Health, Schema: d.ConfigSchema,
		}
		if r.Err != nil {
			listed.Problem = r.Err.Error()
		}
		all = append(all, listed)
	}
	return all, nil
}

// printPlugins prints a block for each plugin.
func printPlugins(out io.Writer, all []listedPlugin) error {
	for i, p := range all {
		if i > 0 {
			fmt.Fprintln(out)
		}
		if p.Forwarder != "" {
			fmt.Fprintf(out, "forwarder %s: ", p.Forwarder)
		}
		fmt.Fprintf(out, "%s (%s)\n", strings.TrimSpace(p.Name+" "+p.Version), p.Runs)
		if p.Problem != "" {
			fmt.Fprintf(out, "  does not start: %s\n", p.Problem)
			continue
		}
		fmt.Fprintf(out, "  %s\n", p.capabilities())
		if err := printKeys(out, p.Schema); err != nil {
			return err
		}
	}
	return nil
}

func (p *listedPlugin) capabilities() string {
	takes := "takes one event a call"
	if p.Batches {
		var limits []string
		if p.MaxEvents > 0 {
			limits = append(limits, counted(p.MaxEvents, "event"))
		}
		if p.MaxBytes > 0 {
			limits = append(limits, sdk.Size(p.MaxBytes).String())
		}
		takes = "takes batches"
		if len(limits) > 0 {
			takes += " of up to " + strings.Join(limits, " and ")
		}
		if p.KeepsOrder {
			takes += ", keeps the order within them"
		}
	}
	if p.Health {
		takes += ", tells whether its destination can be reached"
	}
	return takes
}

// schemaKey is what printKeys shows of a property.
type schemaKey struct {
	Type        any             `json:"type"`
	Description string          `json:"description"`
	Default     json.RawMessage `json:"default"`
	WriteOnly   bool            `json:"writeOnly"`
	// Properties are schemas, or something else that says nothing.
	Properties map[string]json.RawMessage `json:"properties"`
}

// keyOf reads a schema as far as it can be read: it is a plugin's.
func keyOf(schema json.RawMessage) (key schemaKey) {
	if json.Unmarshal(schema, &key) != nil {
		return schemaKey{}
	}
	return key
}

// printKeys prints the configuration keys of a schema, those of sections with
// their path.
func printKeys(out io.Writer, schema json.RawMessage) error {
	if len(schema) == 0 {
		_, err := fmt.Fprintln(out, "  says nothing of its configuration keys")
		return err
	}
	root := keyOf(schema)
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	writeKeys(w, "", root.Properties)
	return w.Flush()
}

func writeKeys(w io.Writer, path string, keys map[string]json.RawMessage) {
	for _, name := range slices.Sorted(maps.Keys(keys)) {
		key := keyOf(keys[name])
		if len(key.Properties) > 0 {
			writeKeys(w, path+name+".", key.Properties)
			continue
		}
		note := key.Description
		switch {
		case key.WriteOnly:
			note += " [secret]"
		case len(key.Default) > 0:
			note += fmt.Sprintf(" [%s]", key.Default)
		}
		fmt.Fprintf(w, "  config.%s%s\t%s\t%s\n", path, name, typeName(key.Type), strings.TrimSpace(note))
	}
}

// typeName is a schema's type, which may be a list of them, for people.
func typeName(t any) string {
	switch t := t.(type) {
	case string:
		return t
	case []any:
		return strings.Trim(strings.ReplaceAll(fmt.Sprint(t), " ", " or "), "[]")
	}
	return "any"
}
