// Package plugins knows the forwarders that are built into pimrelay.
//
// It leaves to others what happens around a forwarder: the lane that calls it,
// and the processes of third parties' forwarders.
package plugins

import (
	"log/slog"
	"maps"
	"slices"

	"github.com/pimrelay/pimrelay/plugins/file"
	"github.com/pimrelay/pimrelay/plugins/http"
	"github.com/pimrelay/pimrelay/sdk"
)

// builtin holds one line for each forwarder, under the name of its directory.
var builtin = map[string]func(*slog.Logger) sdk.Forwarder{
	"file": file.New,
	"http": http.New,
}

// Builtin is a new, not yet configured forwarder of the plugin called name, or
// false if there is none. It logs to logger, which should already carry the
// attributes forwarder and plugin.
func Builtin(name string, logger *slog.Logger) (sdk.Forwarder, bool) {
	newForwarder, ok := builtin[name]
	if !ok {
		return nil, false
	}
	return newForwarder(logger), true
}

// Names are the built-in plugins' names, sorted.
func Names() []string { return slices.Sorted(maps.Keys(builtin)) }
