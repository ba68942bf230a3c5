package edge

import (
	"cmp"
	"errors"
	"fmt"
	"path"
	"slices"
	"strings"
)

// Route says which source a URL path belongs to.
type Route struct {
	// Path is a URL path that begins with "/", written unescaped. A request
	// for Path or for anything below it belongs to Source; of several
	// routes the longest path wins.
	Path string
	// Source is the source's name in the configuration.
	Source string
}

// routeTable finds the source of a path. It never changes after newRouteTable,
// so any number of goroutines may use it.
type routeTable struct {
	routes []Route // paths are clean; the longest come first
}

// newRouteTable checks the routes and reports everything that is wrong with
// them together.
func newRouteTable(routes []Route) (*routeTable, error) {
	var errs []error
	clean := make([]Route, 0, len(routes))
	seen := make(map[string]string, len(routes)) // clean path → source
	for _, r := range routes {
		if err := r.check(); err != nil {
			errs = append(errs, err)
			continue
		}
		p := cleanPath(r.Path)
		if other, taken := seen[p]; taken {
			errs = append(errs, fmt.Errorf("route %q of source %q: source %q has the same path: give each source a path of its own", r.Path, r.Source, other))
			continue
		}
		seen[p] = r.Source
		clean = append(clean, Route{Path: p, Source: r.Source})
	}
	if len(errs) > 0 {
		return nil, errors.Join(errs...)
	}
	slices.SortFunc(clean, func(a, b Route) int {
		return cmp.Or(cmp.Compare(len(b.Path), len(a.Path)), strings.Compare(a.Path, b.Path))
	})
	return &routeTable{routes: clean}, nil
}

// check reports what keeps a route from ever matching.
func (r Route) check() error {
	switch {
	case r.Source == "":
		return fmt.Errorf("route %q: must name a source", r.Path)
	case !strings.HasPrefix(r.Path, "/"):
		return fmt.Errorf("route %q of source %q: must begin with \"/\"", r.Path, r.Source)
	case strings.ContainsAny(r.Path, "?#"):
		return fmt.Errorf("route %q of source %q: must be a path alone, without query or fragment", r.Path, r.Source)
	case strings.Contains(r.Path, "%"):
		return fmt.Errorf("route %q of source %q: must be written unescaped, without \"%%\"", r.Path, r.Source)
	}
	return nil
}

// source returns the source that a clean path belongs to.
func (t *routeTable) source(clean string) (name string, ok bool) {
	for _, r := range t.routes {
		if within(clean, r.Path) {
			return r.Source, true
		}
	}
	return "", false
}

// within reports whether a clean path is base or lies below it.
func within(clean, base string) bool {
	rest, ok := strings.CutPrefix(clean, base)
	return ok && (rest == "" || rest[0] == '/' || base == "/")
}

// cleanPath is the one form of a decoded URL path that routes are compared in:
// rooted, without trailing or doubled slashes and without dot segments. The
// platform calls the URL exactly as a person once typed it, and a redirect to
// the clean form would suspend the subscription, so every form is served.
func cleanPath(p string) string { return path.Clean("/" + p) }
