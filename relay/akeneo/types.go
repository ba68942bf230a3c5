package akeneo

import (
	"errors"
	"fmt"
	"slices"
	"strings"
)

// typePrefix begins every event type that is documented today.
const typePrefix = "com.akeneo.pim.v1."

// kind is one kind of entity that events are about, and where `data` names it.
type kind struct {
	name   string   // first part of Event.Entity: "product"
	object string   // member of data that holds the entity
	id     string   // member of object that identifies it
	parent string   // member of object whose code qualifies id; empty if id alone is unique
	types  []string // documented types, without typePrefix
}

// kinds hold the 39 event types that are documented or have been seen.
var kinds = []kind{
	{name: "app", object: "app", id: "client_id", types: []string{"app.deleted"}},
	{name: "asset", object: "asset", id: "code", parent: "asset_family", types: []string{
		"asset.created", "asset.updated", "asset.updated.delta", "asset.deleted"}},
	{name: "attribute", object: "attribute", id: "code", types: []string{
		"attribute.created", "attribute.updated", "attribute.deleted"}},
	{name: "attribute_group", object: "attribute_group", id: "code", types: []string{
		"attribute-group.created", "attribute-group.updated", "attribute-group.deleted"}},
	{name: "attribute_option", object: "attribute_option", id: "code", parent: "attribute", types: []string{
		"attribute-option.created", "attribute-option.updated", "attribute-option.deleted"}},
	{name: "category", object: "category", id: "code", types: []string{
		"category.created", "category.updated", "category.deleted"}},
	{name: "connection", object: "connection", id: "client_id", types: []string{"connection.deleted"}},
	{name: "family", object: "family", id: "code", types: []string{
		"family.created", "family.updated", "family.deleted"}},
	{name: "job", object: "job", id: "execution_id", types: []string{
		"job.export.status-changed", "job.import.status-changed", "job.mass-edit.status-changed"}},
	{name: "product", object: "product", id: "uuid", types: []string{
		"product.created", "product.updated", "product.updated.delta", "product.deleted",
		"product.became-complete", "product.became-incomplete"}},
	{name: "product_model", object: "product_model", id: "code", types: []string{
		"product-model.created", "product-model.updated", "product-model.updated.delta", "product-model.deleted"}},
	{name: "reference_entity_record", object: "reference_entity_record", id: "code", parent: "reference_entity",
		types: []string{"reference-entity-record.created", "reference-entity-record.updated",
			"reference-entity-record.deleted"}},
	{name: "workflow_task", object: "task", id: "uuid", types: []string{
		"workflow.task.created", "workflow.task.completed"}},
}

// knownType is one entry of the catalogue.
type knownType struct {
	name string // the full type; Decode shares it among all events of the type
	kind *kind
}

// catalogue finds a documented type by its full name.
var catalogue = func() map[string]knownType {
	all := make(map[string]knownType)
	for i := range kinds {
		for _, short := range kinds[i].types {
			name := typePrefix + short
			all[name] = knownType{name: name, kind: &kinds[i]}
		}
	}
	return all
}()

// Types returns the full names of the documented event types, sorted. The
// platform adds types without notice: that a type is missing here is no reason
// to refuse it.
func Types() []string {
	all := make([]string, 0, len(catalogue))
	for name := range catalogue {
		all = append(all, name)
	}
	slices.Sort(all)
	return all
}

// Expand turns the patterns of a subscription into the event types to ask the
// platform for, which takes exact names only. It returns them sorted and
// without repetitions.
//
// A pattern that ends in ".*" stands for all documented types that begin with
// what is before the asterisk, except the deltas, which repeat what another
// event of the same change says and can be large: they are named in full
// ("com.akeneo.pim.v1.product.updated.delta"). Any other name passes as it is,
// whether it is documented or not. A pattern without a match, an empty list
// and a name that can be no event type are errors.
func Expand(patterns []string) ([]string, error) {
	if len(patterns) == 0 {
		return nil, errors.New("must name at least one event type")
	}
	var names []string
	for _, pattern := range patterns {
		prefix, wild := strings.CutSuffix(pattern, "*")
		if !wild {
			if err := checkType(pattern); err != nil {
				return nil, err
			}
			names = append(names, pattern)
			continue
		}
		matches := documented(prefix)
		if len(matches) == 0 {
			return nil, fmt.Errorf("%q matches no documented event type: write %q, or a name in full",
				pattern, typePrefix+"product.*")
		}
		names = append(names, matches...)
	}
	slices.Sort(names)
	return slices.Compact(names), nil
}

// documented returns the documented types, without deltas, that begin with
// prefix, which must end in a dot.
func documented(prefix string) []string {
	if !strings.HasSuffix(prefix, ".") {
		return nil
	}
	var names []string
	for name := range catalogue {
		if strings.HasPrefix(name, prefix) && !strings.HasSuffix(name, ".delta") {
			names = append(names, name)
		}
	}
	return names
}

// checkType refuses what can be no event type, such as a pattern with the
// asterisk in the middle.
func checkType(name string) error {
	letters := func(r rune) bool {
		return r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || strings.ContainsRune("._-", r)
	}
	valid := name != "" && len(name) <= maxType && strings.Trim(name, ".") == name &&
		strings.IndexFunc(name, func(r rune) bool { return !letters(r) }) < 0
	if !valid {
		return fmt.Errorf("%.64q is no event type: write a name such as %q, or a pattern that ends in %q",
			name, typePrefix+"product.updated", ".*")
	}
	return nil
}
