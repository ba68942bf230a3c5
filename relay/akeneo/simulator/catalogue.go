package simulator

import (
	"bytes"
	"embed"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"
)

//go:embed events/*.json
var eventFiles embed.FS

// sampleIdentifier is the identifier of the product in the sample events.
const sampleIdentifier = "my-product-identifier"

// template is an event type with its data: everything of a CloudEvent that
// does not change from one event to the next. It is immutable.
type template struct {
	eventType string
	source    string
	schema    string
	// data is compact JSON; identified is the same with the product's
	// identifier, for subscriptions that ask for it. They are equal in events
	// that are not about a product.
	data, identified []byte
}

// catalogue holds a template per documented event type.
type catalogue struct {
	types  []string // sorted
	byType map[string]*template
}

// samples is the catalogue of the 39 documented types. The files are part of
// the binary, so that a faulty one cannot reach a user.
var samples = mustLoadCatalogue()

func mustLoadCatalogue() catalogue {
	files, err := eventFiles.ReadDir("events")
	if err != nil {
		panic(err)
	}
	c := catalogue{byType: make(map[string]*template, len(files))}
	for _, file := range files {
		raw, err := eventFiles.ReadFile("events/" + file.Name())
		if err != nil {
			panic(err)
		}
		t, err := parseSample(raw)
		if err != nil {
			panic(fmt.Sprintf("events/%s: %v", file.Name(), err))
		}
		c.byType[t.eventType] = t
	}
	c.types = slices.Sorted(maps.Keys(c.byType))
	return c
}

// parseSample makes a template of a CloudEvent.
func parseSample(raw []byte) (*template, error) {
	var event struct {
		Type, Source, DataSchema string
		Data                     json.RawMessage
	}
	if err := json.Unmarshal(raw, &event); err != nil {
		return nil, err
	}
	t := &template{eventType: event.Type, source: event.Source, schema: event.DataSchema}
	data, err := compact(event.Data)
	if err != nil {
		return nil, err
	}
	t.data, t.identified = data, data
	if t.namesProduct() {
		t.identified, err = editProduct(data, func(product []member) []member {
			return slices.Insert(product, 1, member{"identifier", json.RawMessage(`"` + sampleIdentifier + `"`)})
		})
	}
	return t, err
}

// namesProduct reports whether send_product_identifier concerns the type.
func (t *template) namesProduct() bool {
	return strings.HasPrefix(t.eventType, "com.akeneo.pim.v1.product.")
}

// hasMembers reports whether data is a JSON object with anything in it. Null and
// nothing at all count as an empty one; anything else is an error.
func hasMembers(data json.RawMessage) (bool, error) {
	if len(data) == 0 || string(data) == "null" {
		return false, nil
	}
	fields, err := members(data)
	if err != nil {
		return false, fmt.Errorf("data must be a JSON object: %w", err)
	}
	return len(fields) > 0, nil
}

// with is the template with other data, a JSON object.
func (t *template) with(data json.RawMessage) (_ *template, err error) {
	own := *t
	if own.identified, err = compact(data); err != nil {
		return nil, err
	}
	own.data = own.identified
	if own.namesProduct() {
		own.data, err = editProduct(own.identified, func(product []member) []member {
			return slices.DeleteFunc(product, func(m member) bool { return m.key == "identifier" })
		})
	}
	return &own, err
}

// event is one occurrence in the PIM. It is immutable.
type event struct {
	*template
	id   string
	time time.Time // platform time of its publication
}

// body is the CloudEvent as it is sent to a subscription: the same bytes at
// every attempt.
func (e *event) body(subscription string, identified bool) []byte {
	data := e.data
	if identified {
		data = e.identified
	}
	b := make([]byte, 0, len(data)+len(e.schema)+2*len(e.eventType)+320)
	b = append(b, `{"specversion":"1.0","id":"`...)
	b = append(b, e.id...)
	b = append(b, `","type":"`...)
	b = append(b, e.eventType...)
	b = append(b, `","source":"`...)
	b = append(b, e.source...)
	b = append(b, `","subject":"`...)
	b = append(b, subscription...)
	b = append(b, `","time":"`...)
	b = e.time.AppendFormat(b, time.RFC3339)
	b = append(b, `","datacontenttype":"application/json","dataschema":"`...)
	b = append(b, e.schema...)
	b = append(b, `","data":`...)
	b = append(b, data...)
	return append(b, '}')
}

// member is one name and value of a JSON object, in its place.
type member struct {
	key   string
	value json.RawMessage
}

// members takes a JSON object apart without losing the order of its names.
func members(object []byte) ([]member, error) {
	dec := json.NewDecoder(bytes.NewReader(object))
	start, err := dec.Token()
	if err != nil {
		return nil, err
	}
	if start != json.Delim('{') {
		return nil, errors.New("not an object")
	}
	var list []member
	for dec.More() {
		key, err := dec.Token()
		if err != nil {
			return nil, err
		}
		var value json.RawMessage
		if err := dec.Decode(&value); err != nil {
			return nil, err
		}
		list = append(list, member{key.(string), value})
	}
	if _, err := dec.Token(); err != nil {
		return nil, err
	}
	return list, nil
}

// joined is the inverse of members.
func joined(list []member) []byte {
	var b bytes.Buffer
	b.WriteByte('{')
	for i, m := range list {
		if i > 0 {
			b.WriteByte(',')
		}
		b.Write(unescaped(m.key))
		b.WriteByte(':')
		b.Write(m.value)
	}
	b.WriteByte('}')
	return b.Bytes()
}

// editProduct changes the members of data.product, if there is such an object.
func editProduct(data []byte, edit func([]member) []member) ([]byte, error) {
	fields, err := members(data)
	if err != nil {
		return nil, err
	}
	for i, f := range fields {
		if f.key != "product" || f.value[0] != '{' {
			continue
		}
		product, err := members(f.value)
		if err != nil {
			return nil, err
		}
		fields[i].value = joined(edit(product))
	}
	return joined(fields), nil
}

// compact removes white space and nothing else, so that a JavaScript consumer
// that serialises the body again gets the same bytes.
func compact(raw []byte) ([]byte, error) {
	var b bytes.Buffer
	err := json.Compact(&b, raw)
	return b.Bytes(), err
}

// unescaped is a string as JSON without HTML escapes.
func unescaped(s string) []byte {
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(s); err != nil {
		panic(err) // a string always encodes
	}
	return bytes.TrimSuffix(b.Bytes(), []byte("\n"))
}
