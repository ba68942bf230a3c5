package edge

import (
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestLongestRouteWins(t *testing.T) {
	t.Parallel()
	table, err := newRouteTable([]Route{
		{"/hooks", "all"}, {"/hooks/catalog/", "catalog"}, {"//hooks/catalog/./b2b", "b2b"}, {"/b2b", "other"},
	})
	if err != nil {
		t.Fatal(err)
	}
	want := map[string]string{
		"/hooks": "all", "/hooks/x": "all", "/hooks/catalogue": "all", "/hooks/catalog": "catalog",
		"/hooks/catalog/x": "catalog", "/hooks/catalog/b2b": "b2b", "/hooks/catalog/b2b/x/y": "b2b",
		"/b2b": "other", "/": "", "/hook": "", "/hooksx": "", "/x/hooks": "",
	}
	got := make(map[string]string)
	for p := range want {
		got[p], _ = table.source(p)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("sources (-want +got):\n%s", diff)
	}

	root, err := newRouteTable([]Route{{"/", "all"}, {"/a", "a"}})
	if err != nil {
		t.Fatal(err)
	}
	for p, want := range map[string]string{"/": "all", "/b": "all", "/ab": "all", "/a": "a", "/a/b": "a"} {
		if got, _ := root.source(p); got != want {
			t.Errorf("below the root, %s belongs to %q, want %q", p, got, want)
		}
	}
}

func TestSetRoutes(t *testing.T) {
	t.Parallel()
	d := newDoor(t, nil)
	ask := func(path string) int {
		r := httptest.NewRequest(http.MethodGet, path, nil)
		w := httptest.NewRecorder()
		d.serve(w, r)
		return w.Code
	}
	if err := d.SetRoutes([]Route{{"/new", "new"}}); err != nil {
		t.Fatal(err)
	}
	if known, gone := ask("/new"), ask("/hooks/catalog"); known != 200 || gone != 401 {
		t.Errorf("after the change the new path is answered %d and the old one %d, want 200 and 401", known, gone)
	}
	err := d.SetRoutes([]Route{
		{"hooks", "a"}, {"/x?y", "b"}, {"/x#y", "c"}, {"/%41", "d"}, {"/e", ""}, {"/f", "f"}, {"/f/", "g"}, {"", "h"},
	})
	if err == nil {
		t.Fatal("bad routes are taken")
	}
	want := []string{
		`route "hooks" of source "a": must begin with "/"`,
		`route "/x?y" of source "b": must be a path alone, without query or fragment`,
		`route "/x#y" of source "c": must be a path alone, without query or fragment`,
		`route "/%41" of source "d": must be written unescaped, without "%"`,
		`route "/e": must name a source`,
		`route "/f/" of source "g": source "f" has the same path: give each source a path of its own`,
		`route "" of source "h": must begin with "/"`,
	}
	if diff := cmp.Diff(want, strings.Split(err.Error(), "\n")); diff != "" {
		t.Errorf("faults (-want +got):\n%s", diff)
	}
	if got := ask("/new"); got != 200 {
		t.Errorf("after a change that was refused the path is answered %d, want 200", got)
	}
}

func FuzzSource(f *testing.F) {
	for _, p := range []string{"/hooks/catalog", "//hooks/./catalog/", "/hooks/catalog/../assets", "/%2e%2e/hooks", "*", "", "/\x00", "/hooks/catalogue"} {
		f.Add(p)
	}
	table, err := newRouteTable([]Route{{"/hooks/catalog", "catalog"}, {"/hooks/catalog/deep", "deep"}, {"/hooks/assets", "assets"}})
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, p string) {
		name, ok := table.source(cleanPath(p))
		if want := sourceBySegments(p); name != want || ok != (want != "") {
			t.Fatalf("%q belongs to %q (%v), want %q", p, name, ok, want)
		}
		for _, same := range []string{p + "/", p + "//", p + "/.", "/" + p, "/./" + p, "/x/../" + p, strings.ReplaceAll(p, "/", "//")} {
			if other, _ := table.source(cleanPath(same)); other != name {
				t.Fatalf("%q belongs to %q, but %q to %q", p, name, same, other)
			}
		}
	})
}

// sourceBySegments is what FuzzSource expects, written another way.
func sourceBySegments(p string) string {
	var segments []string
	for s := range strings.SplitSeq(p, "/") {
		switch s {
		case "", ".":
		case "..":
			segments = segments[:max(0, len(segments)-1)]
		default:
			segments = append(segments, s)
		}
	}
	begins := func(with ...string) bool {
		return len(segments) >= len(with) && slices.Equal(segments[:len(with)], with)
	}
	switch {
	case begins("hooks", "catalog", "deep"):
		return "deep"
	case begins("hooks", "catalog"):
		return "catalog"
	case begins("hooks", "assets"):
		return "assets"
	}
	return ""
}

// Whatever the request, the door's own answers stay within its table.
func FuzzHandler(f *testing.F) {
	f.Add("POST", "/hooks/catalog", true, "{}")
	f.Add("GET", "//hooks/./catalog/", false, "")
	f.Add("OPTIONS", "*", true, "")
	d := newDoor(f, func(o *Options) { o.MaxBody = 16 })
	f.Fuzz(func(t *testing.T, method, path string, sign bool, body string) {
		r := httptest.NewRequest(http.MethodPost, "/", strings.NewReader(body))
		r.Method, r.URL = method, &url.URL{Path: path}
		if sign {
			r.Header.Set(signatureHeader, body)
		}
		w := httptest.NewRecorder()
		d.serve(w, r)
		if !slices.Contains([]int{200, 401, 405, 413, 429}, w.Code) || w.Body.Len() > 0 || w.Header().Get("Location") != "" {
			t.Fatalf("%s %q: answered %d %v with %d bytes", method, path, w.Code, w.Header(), w.Body.Len())
		}
	})
}
