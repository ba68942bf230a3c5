package akeneo

import "strings"

// maxEntity is the longest entity in bytes. Codes in the PIM have at most 255
// characters, so two of them fit with room to spare.
const maxEntity = 4096

// qualifier escapes the first of two codes, so that the first slash of an
// entity always stands between them.
var qualifier = strings.NewReplacer("%", "%25", "/", "%2F")

// entityOf names what an event of kind k is about: "product:<uuid>",
// "category:<code>", "asset:<family>/<code>". No two entities share a name: the
// part before the colon is one of a fixed set, and in what qualifies a code, "%"
// and "/" are written %25 and %2F. data is the event's data as it is written.
// The result is empty if data does not say, or says it with control characters
// or at more than maxEntity bytes.
func entityOf(k *kind, data []byte) string {
	var object, id, parent, code []byte
	find := func(in []byte, want string, found *[]byte) {
		visit := func(name, value []byte) {
			if named(name, want) {
				*found = value
			}
		}
		if members(in, visit) != nil {
			*found = nil
		}
	}
	find(data, k.object, &object)
	find(object, k.id, &id)
	entity := k.name + ":"
	if k.parent != "" {
		find(object, k.parent, &parent)
		find(parent, "code", &code)
		qualifying := scalar(code)
		if qualifying == "" {
			return ""
		}
		entity += qualifier.Replace(qualifying) + "/"
	}
	identifying := scalar(id)
	entity += identifying
	if identifying == "" || len(entity) > maxEntity || !printable(entity) {
		return ""
	}
	return entity
}

// scalar is the text of a string or a number, and empty for anything else.
// Numbers are taken as they are written: execution ids are integers, and a code
// of digits may arrive as one.
func scalar(value []byte) string {
	if len(value) == 0 {
		return ""
	}
	switch c := value[0]; {
	case c == '"':
		return unquote(value)
	case c == '-' || c >= '0' && c <= '9':
		return string(value)
	}
	return ""
}
