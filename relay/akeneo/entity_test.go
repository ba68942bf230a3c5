package akeneo

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

const samplePrefix = "com.akeneo.pim.v1."

// TestEntityOfEverySample keeps the entity of each sample event in a table: the
// file's name without prefix and suffix, and the entity.
func TestEntityOfEverySample(t *testing.T) {
	t.Parallel()
	const product = "product:6a9f8486-2c36-4680-b87f-6f5f8f01b6cf"
	const task = "workflow_task:0077faa5-7f20-4b47-9f46-f05f4140e816"
	want := map[string]string{
		"app.deleted": "app:test_client_id", "connection.deleted": "connection:connection-client-id",
		"asset.created": "asset:family1/asset1", "asset.updated": "asset:family1/asset1",
		"asset.deleted": "asset:family1/asset1", "asset.updated.delta": "asset:eskozipfiles/test1",
		"attribute.created": "attribute:an-attribute-code", "attribute.updated": "attribute:an-attribute-code",
		"attribute.deleted":        "attribute:an-attribute-code",
		"attribute-group.created":  "attribute_group:an-attribute-group-code",
		"attribute-group.updated":  "attribute_group:an-attribute-group-code",
		"attribute-group.deleted":  "attribute_group:an_attribute_group_code",
		"attribute-option.created": "attribute_option:an_attribute_code/an_attribute_option_code",
		"attribute-option.updated": "attribute_option:an_attribute_code/an_attribute_option_code",
		"attribute-option.deleted": "attribute_option:an_attribute_code/an_attribute_option_code",
		"category.created":         "category:category-1", "category.updated": "category:category-1",
		"category.deleted": "category:category-1", "family.created": "family:a_family_code",
		"family.updated": "family:a_family_code", "family.deleted": "family:a_family_code",
		"job.export.status-changed": "job:233", "job.import.status-changed": "job:11",
		"job.mass-edit.status-changed": "job:233", "job.import.status-changed.ended": "job:11",
		"product-model.created":           "product_model:a-product-model-code",
		"product-model.updated":           "product_model:a-product-model-code",
		"product-model.deleted":           "product_model:a-product-model-code",
		"product-model.updated.delta":     "product_model:a_product_model_code",
		"reference-entity-record.created": "reference_entity_record:brands/Addadas",
		"reference-entity-record.updated": "reference_entity_record:brands/Addadas",
		"reference-entity-record.deleted": "reference_entity_record:brands/Addadas",
		"workflow.task.created":           task, "workflow.task.completed": task,
		"workflow.task.created.product-model": task,
	}
	for _, suffix := range []string{
		"created", "updated", "deleted", "updated.delta", "became-complete", "became-incomplete",
		"created.with-identifier", "updated.with-identifier", "deleted.with-identifier",
		"updated.delta.with-identifier", "became-complete.with-identifier", "became-incomplete.with-identifier",
		"updated.author-api", "updated.source-event-platform",
		"updated.delta.non-localizable", "updated.delta.quantified-updated",
	} {
		want["product."+suffix] = product
	}
	got := make(map[string]string)
	for _, file := range sampleFiles(t) {
		body, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		event, err := Decode(body)
		if err != nil {
			t.Fatalf("%s: %v", file, err)
		}
		if event.Time.IsZero() || event.Subject == "" || event.DataContentType != "application/json" ||
			!strings.HasSuffix(event.DataSchema, event.Type+".schema.json") {
			t.Errorf("%s: an attribute is missing: %+v", file, event)
		}
		name := strings.TrimSuffix(filepath.Base(file), ".json")
		got[strings.TrimPrefix(name, samplePrefix)] = event.Entity
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("entities (-want +got):\n%s", diff)
	}
}

func TestEntityOfHostileData(t *testing.T) {
	t.Parallel()
	tests := []struct{ name, eventType, data, want string }{
		{"unknown type", "product.exploded", `{"product":{"uuid":"u"}}`, ""},
		{"no data", "product.updated", "", ""},
		{"null data", "product.updated", "null", ""},
		{"data is a string", "product.updated", `"product"`, ""},
		{"data is an array", "product.updated", `[{"product":{"uuid":"u"}}]`, ""},
		{"no product", "product.updated", `{"author":{"uuid":"u"}}`, ""},
		{"product is a string", "product.updated", `{"product":"u"}`, ""},
		{"empty uuid", "product.updated", `{"product":{"uuid":""}}`, ""},
		{"null uuid", "product.updated", `{"product":{"uuid":null}}`, ""},
		{"uuid is an object", "product.updated", `{"product":{"uuid":{}}}`, ""},
		{"uuid with a newline", "product.updated", `{"product":{"uuid":"a\nb"}}`, ""},
		{"uuid beyond reason", "product.updated", `{"product":{"uuid":"` + strings.Repeat("u", 4096) + `"}}`, ""},
		{"the last member counts", "product.updated", `{"product":{"uuid":"a"},"product":{"uuid":"b","uuid":"c"}}`, "product:c"},
		{"the last member is useless", "product.updated", `{"product":{"uuid":"a"},"product":null}`, ""},
		{"escaped names", "product.updated", `{"pro\u0064uct":{"\u0075uid":"a\u0062"}}`, "product:ab"},
		{"nested namesake", "product.updated", `{"changes":{"product":{"uuid":"a"}},"product":{"uuid":"b"}}`, "product:b"},
		{"code as a number", "category.updated", `{"category":{"code":42}}`, "category:42"},
		{"code as a boolean", "category.updated", `{"category":{"code":true}}`, ""},
		{"other scripts", "category.updated", `{"category":{"code":"möbel/灯"}}`, "category:möbel/灯"},
		{"no family", "asset.updated", `{"asset":{"code":"a"}}`, ""},
		{"family without code", "asset.updated", `{"asset":{"code":"a","asset_family":{}}}`, ""},
		{"family is a string", "asset.updated", `{"asset":{"code":"a","asset_family":"f"}}`, ""},
		{"asset without code", "asset.updated", `{"asset":{"asset_family":{"code":"f"}}}`, ""},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			event, err := Decode([]byte(envelope("type", `"`+samplePrefix+test.eventType+`"`, "data", test.data)))
			if err != nil {
				t.Fatal(err)
			}
			if event.Entity != test.want {
				t.Errorf("Entity = %q, want %q", event.Entity, test.want)
			}
		})
	}
}

func TestNoTwoEntitiesShareAName(t *testing.T) {
	t.Parallel()
	codes := []string{"a", "b", "a/b", "b/a", "/", "//", "%", "%2F", "%25", "a%2Fb", "a/", "/a", ":"}
	seen := make(map[string][2]string)
	for _, family := range codes {
		for _, code := range codes {
			asset := map[string]any{"code": code, "asset_family": map[string]any{"code": family}}
			data, err := json.Marshal(map[string]any{"asset": asset})
			if err != nil {
				t.Fatal(err)
			}
			entity := entityOf(catalogue[samplePrefix+"asset.updated"].kind, data)
			if other, taken := seen[entity]; taken || entity == "" {
				t.Errorf("%q and %q are both %q", other, [2]string{family, code}, entity)
			}
			seen[entity] = [2]string{family, code}
		}
	}
}
