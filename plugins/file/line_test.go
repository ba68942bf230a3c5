package file

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestAppendLine(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct{ payload, want string }{
		"compact":          {`{"a":1}`, `{"a":1}`},
		"byte for byte":    {` {"a" : 1.0, "b":"\u00e9\/<&>"}	`, ` {"a" : 1.0, "b":"\u00e9\/<&>"}	`},
		"several lines":    {"{\n\t\"a b\" : [ 1.0,\r\n\"\\n\" ]}\n", `{"a b":[1.0,"\n"]}`},
		"carriage return":  {"[1,\r2]", `[1,2]`},
		"characters stay":  {"[\n\"<&>\u2028é\"]", "[\"<&>\u2028é\"]"},
		"empty":            {"", `""`},
		"text":             {"sku;name\n1;<é>\n", `"sku;name\n1;<é>\n"`},
		"nearly JSON":      {`{"a":1}{}`, `"{\"a\":1}{}"`},
		"no UTF-8":         {"\xff", `"\ufffd"`},
		"newline in quote": {"\"a\nb\"", `"\"a\nb\""`},
	} {
		var buf bytes.Buffer
		appendLine(&buf, []byte(test.payload))
		if diff := cmp.Diff(test.want+"\n", buf.String()); diff != "" {
			t.Errorf("%s: unexpected line (-want +got):\n%s", name, diff)
		}
	}
}

func FuzzAppendLine(f *testing.F) {
	for _, seed := range []string{`{"a":1}`, "{\n}", "\r", "", "\"\n\"", "\xff\n", "[1,\n 2]", "\u2028"} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, payload []byte) {
		buf := bytes.NewBufferString("before\n")
		appendLine(buf, payload)
		line, ok := bytes.CutPrefix(buf.Bytes(), []byte("before\n"))
		if !ok || bytes.IndexByte(line, '\n') != len(line)-1 || bytes.ContainsRune(line, '\r') || !json.Valid(line) {
			t.Fatalf("%q becomes the line %q", payload, line)
		}
		line = line[:len(line)-1]
		switch {
		case !json.Valid(payload):
			var text string
			if err := json.Unmarshal(line, &text); err != nil || text != string(bytes.ToValidUTF8(payload, nil)) && text != string([]rune(string(payload))) {
				t.Fatalf("%q becomes %q, which is the text %q", payload, line, text)
			}
		case bytes.ContainsAny(payload, "\r\n"):
			var compact bytes.Buffer
			if err := json.Compact(&compact, payload); err != nil || !bytes.Equal(compact.Bytes(), line) {
				t.Fatalf("%q becomes %q, want %q", payload, line, compact.Bytes())
			}
		case !bytes.Equal(payload, line):
			t.Fatalf("%q becomes %q", payload, line)
		}
	})
}

// FuzzTornLine checks that whatever stands at the end of a file, what is kept
// of it are its whole lines.
func FuzzTornLine(f *testing.F) {
	f.Add([]byte("{}\n{"))
	f.Add([]byte("\n\n"))
	f.Add(append(make([]byte, 64<<10), "\nx"...))
	f.Fuzz(func(t *testing.T, content []byte) {
		got, err := endOfLines(bytes.NewReader(content), int64(len(content)))
		if want := int64(bytes.LastIndexByte(content, '\n') + 1); err != nil || got != want {
			t.Errorf("the lines end at %d, %v; want %d", got, err, want)
		}
	})
}

func TestEndOfLinesOfAFileThatShrinks(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "f")
	put(t, path, "x")
	file, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	if _, err := endOfLines(file, 100); err == nil {
		t.Error("reading behind the end gave no error")
	}
}
