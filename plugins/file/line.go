package file

import (
	"bytes"
	"encoding/json"
)

// appendLine adds payload to buf as one line. JSON stays as it is, byte for
// byte, unless it spans several lines: then the white space between its tokens
// goes. Anything else becomes a JSON string, in which bytes that are no UTF-8
// are replaced.
func appendLine(buf *bytes.Buffer, payload []byte) {
	switch {
	case !json.Valid(payload):
		text := json.NewEncoder(buf)
		text.SetEscapeHTML(false)
		_ = text.Encode(string(payload)) // a string always has a JSON form; ends the line
		return
	case bytes.ContainsAny(payload, "\n\r"):
		_ = json.Compact(buf, payload) // valid, as the first case has found
	default:
		buf.Write(payload)
	}
	buf.WriteByte('\n')
}
