package pluginhost

import (
	"log/slog"
	"maps"
	"os"
	"slices"
	"strings"

	"github.com/pimrelay/pimrelay/sdk/serve"
)

// inherited are the variables that a process gets from the relay's own
// environment, because programs cannot well run without them. All others stay
// with the relay, which has secrets there.
var inherited = []string{
	"PATH", "HOME", "USER", "LANG", "LC_ALL", "TZ", "TMPDIR", "SSL_CERT_FILE", "SSL_CERT_DIR",
	"HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "http_proxy", "https_proxy", "no_proxy",
}

// environment is what a process of these limits gets, beside what the handshake
// adds.
func environment(limits Limits, level slog.Level) []string {
	values := make(map[string]string)
	for _, name := range inherited {
		if value, ok := os.LookupEnv(name); ok {
			values[name] = value
		}
	}
	values[serve.ParentVariable] = "stdin"
	values[serve.LogLevelVariable] = strings.ToLower(level.String())
	for name, value := range limits.Environment {
		values[name] = string(value)
	}
	var all []string
	for _, name := range slices.Sorted(maps.Keys(values)) {
		all = append(all, name+"="+values[name])
	}
	return all
}
