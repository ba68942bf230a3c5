package akeneo

import (
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestTypesAreTheDocumentedOnes(t *testing.T) {
	t.Parallel()
	files, err := os.ReadDir("testdata/events")
	if err != nil {
		t.Fatal(err)
	}
	var want []string
	for _, file := range files {
		want = append(want, strings.TrimSuffix(file.Name(), ".json"))
	}
	slices.Sort(want)
	if diff := cmp.Diff(want, Types()); diff != "" || len(want) != 39 {
		t.Errorf("Types (-documented +ours), %d documented:\n%s", len(want), diff)
	}
}

func TestExpand(t *testing.T) {
	t.Parallel()
	const p = "com.akeneo.pim.v1."
	tests := []struct {
		name     string
		patterns []string
		want     []string // without p
		problem  string
	}{
		{name: "products without deltas and models", patterns: []string{p + "product.*"}, want: []string{
			"product.became-complete", "product.became-incomplete", "product.created", "product.deleted", "product.updated"}},
		{name: "models", patterns: []string{p + "product-model.*"}, want: []string{
			"product-model.created", "product-model.deleted", "product-model.updated"}},
		{name: "deeper", patterns: []string{p + "job.export.*"}, want: []string{"job.export.status-changed"}},
		{name: "a delta by name", patterns: []string{p + "product.updated.delta"}, want: []string{"product.updated.delta"}},
		{name: "unknown name", patterns: []string{p + "measurement_family.created"}, want: []string{"measurement_family.created"}},
		{name: "sorted, once", patterns: []string{p + "family.updated", p + "family.*", p + "app.deleted"}, want: []string{
			"app.deleted", "family.created", "family.deleted", "family.updated"}},

		{name: "nothing", problem: "at least one event type"},
		{name: "no match", patterns: []string{p + "products.*"}, problem: `"com.akeneo.pim.v1.products.*" matches no documented event type`},
		{name: "only a delta would match", patterns: []string{p + "product.updated.*"}, problem: "matches no documented"},
		{name: "asterisk without a dot", patterns: []string{p + "product*"}, problem: "matches no documented"},
		{name: "asterisk alone", patterns: []string{"*"}, problem: "matches no documented"},
		{name: "asterisk in the middle", patterns: []string{p + "*.created"}, problem: "is no event type"},
		{name: "empty name", patterns: []string{""}, problem: "is no event type"},
		{name: "space", patterns: []string{" " + p + "product.created"}, problem: "is no event type"},
		{name: "dot at the end", patterns: []string{p}, problem: "is no event type"},
		{name: "too long", patterns: []string{strings.Repeat("a", 257)}, problem: "is no event type"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			got, err := Expand(test.patterns)
			if test.problem != "" {
				if err == nil || !strings.Contains(err.Error(), test.problem) {
					t.Fatalf("error %v, want one with %q", err, test.problem)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			for i := range got {
				got[i] = strings.TrimPrefix(got[i], p)
			}
			if diff := cmp.Diff(test.want, got); diff != "" {
				t.Errorf("Expand (-want +got):\n%s", diff)
			}
		})
	}
}

func TestExpandOfEverythingLeavesOutTheDeltas(t *testing.T) {
	t.Parallel()
	got, err := Expand([]string{"com.akeneo.pim.v1.*"})
	if err != nil || len(got) != 36 {
		t.Fatalf("Expand returned %d types and %v, want 36: all but the three deltas", len(got), err)
	}
}
