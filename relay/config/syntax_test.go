package config

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestParseRefusesTheWholeFile(t *testing.T) {
	t.Parallel()
	quote := "is not valid YAML: put values that begin with * or & in quotes"
	for name, test := range map[string]struct{ data, want string }{
		"empty":                 {"", "c.yaml: is empty: write at least one section"},
		"only a comment":        {"# nothing\n\n", "c.yaml: is empty: write at least one section"},
		"only a marker":         {"---\n", "c.yaml: is empty: write at least one section"},
		"null":                  {"~\n", "c.yaml: is empty: write at least one section"},
		"list":                  {"\n- a\n", "c.yaml:2: must hold a mapping of sections (got a list)"},
		"scalar":                {"text\n", "c.yaml:1: must hold a mapping of sections (got a single value)"},
		"second document":       {"a: 1\n---\nb: 1\n", "c.yaml:2: a second YAML document begins here: keep one document in the file"},
		"empty second document": {"a: 1\n---\n", "c.yaml:2: a second YAML document begins here: keep one document in the file"},
		"broken second":         {"a: 1\n---\n- [\n", "c.yaml:3: is not valid YAML: a value is missing, or a bracket or quote is out of place"},
		"text after the end":    {"a: 1\n...\nfoo\n", "c.yaml:3: is not valid YAML: text follows the end of the document"},
		"NUL":                   {"a: 1\nb: \x00\n", "c.yaml:2: control character 0x00: remove it, or write it as an escape in double quotes"},
		"not UTF-8":             {"a: 1\n\nb: \xff\n", "c.yaml:3: byte 0xff is not UTF-8: save the file as UTF-8"},
		"UTF-16":                {"\xff\xfea\x00:\x00", "c.yaml:1: byte 0xff is not UTF-8: save the file as UTF-8"},
		"lone CR":               {"a: 1\r\nb: 2\rc: 3\n", "c.yaml:2: U+000D ends a line in YAML, but not in most editors: end lines with a line feed"},
		"line separator":        {"a: 1\nb: x\u2028y\n", "c.yaml:2: U+2028 ends a line in YAML, but not in most editors: end lines with a line feed"},
		"tab":                   {"a: 1\nb:\n\tc: 2\n", "c.yaml:3: is not valid YAML: the line is indented with a tab, use spaces"},
		"tab after spaces":      {"a: 1\nb:\n  \tc: 2\n  d: 1\n", "c.yaml:3: is not valid YAML: the line is indented with a tab, use spaces"},
		"brace in flow":         {"a: 1\nb: 2\nc: {x: ${env:A}, y: 2}\nd: 1\n", "c.yaml:3: is not valid YAML: inside { } and [ ] close what was opened, and put values with ${…}, brackets or commas in quotes"},
		"star":                  {"a: 1\nb: 2\nc: [*, b]\nd: 1\n", "c.yaml:3: " + quote},
		"unknown alias":         {"a: 1\nb: 2\nc: *hunter2\nd: 1\n", "c.yaml:3: " + quote},
		"dedent":                {"a: 1\nb:\n  c: 1\n d: 2\ne: 1\n", "c.yaml:4: is not valid YAML: check the indentation, and quote marks inside quotes"},
		"deep dedent":           {"a:\n  b:\n    c:\n      - d\n     e: 1\n", "c.yaml:5: is not valid YAML: check the indentation, and quote marks inside quotes"},
		"list among keys":       {"a: 1\nb: 2\n- c\n", "c.yaml:3: is not valid YAML: check the indentation, and quote marks inside quotes"},
		"quote in quotes":       {"a: 1\nb: 'it's'\nc: 1\n", "c.yaml:2: is not valid YAML: check the indentation, and quote marks inside quotes"},
		"open quote":            {"a: 1\nb:\n  c: \"x\n  d: 2\n", "c.yaml:3: is not valid YAML: the quotes that open here are never closed"},
		"colon in value":        {"a: 1\nb: c: d\n", "c.yaml:2: is not valid YAML: check the indentation, and put values that contain \": \" in quotes"},
		"key without colon":     {"a: 1\nb: 2\nc\nd: 1\n", "c.yaml:3: is not valid YAML: write \"key: value\", and check the indentation"},
		"reserved character":    {"a: 1\nb: @x\n", "c.yaml:2: is not valid YAML: put values that begin with @, ` or % in quotes"},
		"reserved on line one":  {"a: %x\n", "c.yaml:1: is not valid YAML: put values that begin with @, ` or % in quotes"},
		"bad escape":            {"a: 1\nb: \"\\q\"\n", "c.yaml:2: is not valid YAML: write a backslash in double quotes as \\\\, or use single quotes"},
		"other version":         {"%YAML 1.2\n---\na: 1\n", "c.yaml:1: is not valid YAML: found incompatible YAML document"},
		"too large":             {"a: " + strings.Repeat("x", 1<<20), "c.yaml: is larger than 1 MiB: keep bulky values in files of their own and write ${file:/path}"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			doc, err := Parse("c.yaml", []byte(test.data), Options{})
			if err == nil {
				t.Fatalf("parsed: %v", doc.values)
			}
			if _, ok := errors.AsType[Problems](err); !ok || err.Error() != test.want {
				t.Errorf("%T:\n got %v\nwant %v", err, err, test.want)
			}
		})
	}
}

// TestHostileFilesAreRefusedQuickly gives files whose cost could grow faster
// than their size. A hang is the failure.
func TestHostileFilesAreRefusedQuickly(t *testing.T) {
	t.Parallel()
	bomb := "a: &a [x, x, x, x, x, x, x, x, x]\n"
	for c := 'b'; c <= 'i'; c++ {
		bomb += fmt.Sprintf("%c: &%c [%s]\n", c, c, strings.Repeat(fmt.Sprintf("*%c, ", c-1), 9))
	}
	deep := "extra: " + strings.Repeat("{a: ", 5000) + "1" + strings.Repeat("}", 5000)
	longKey := strings.Repeat("k", 1000)
	for name, test := range map[string]struct{ data, want string }{
		"aliases":      {bomb, "c.yaml:1: a: anchors, aliases and merge keys"},
		"depth":        {deep, "is nested deeper than 32 levels"},
		"values":       {"extra: [" + strings.Repeat("1,", 200_000) + "]", "the file holds more than 50000 values"},
		"long key":     {longKey + ": 1\n", "c.yaml:1: a key may have at most 128 bytes"},
		"unknown keys": {manyKeys(20_000), "and 19900 more problems"},
		"duplicates":   {strings.Repeat("a: b\n", 200_000), "more problems"},
		"open quote":   {"a: \"" + strings.Repeat("\n", 1<<19), "the quotes that open here are never closed"},
		"deep flow":    {"a: " + strings.Repeat("[", 1<<19), "is not valid YAML"},
		"references":   {"data_dir: " + strings.Repeat("${x}", 1<<18-8), "more problems"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			_, err := decoded(t, test.data, Options{})
			if err == nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("got %.500v\nwant %s", err, test.want)
			}
			if problems, _ := errors.AsType[Problems](err); len(problems) > maxProblems+1 {
				t.Errorf("%d problems are shown", len(problems))
			}
		})
	}
}

func manyKeys(n int) string {
	var data strings.Builder
	for i := range n {
		fmt.Fprintf(&data, "key_with_a_rather_long_name_%d: 1\n", i)
	}
	return data.String()
}

// decoded parses and decodes data as c.yaml.
func decoded(t *testing.T, data string, opts Options) (settings, error) {
	t.Helper()
	got := defaults()
	doc, err := Parse("c.yaml", []byte(data), opts)
	if err == nil {
		err = doc.Decode(&got)
	}
	return got, err
}

func TestLoad(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "pimrelay.yaml")
	if _, err := Load(path, Options{}); !errors.Is(err, fs.ErrNotExist) || !strings.Contains(err.Error(), path) {
		t.Errorf("missing file: %v", err)
	}
	if _, err := Load(t.TempDir(), Options{}); err == nil || !strings.HasPrefix(err.Error(), "read configuration: ") {
		t.Errorf("directory: %v", err)
	}
	write := func(data string) {
		if err := os.WriteFile(path, []byte(data), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("a: " + strings.Repeat("x", 2<<20))
	if _, err := Load(path, Options{}); err == nil || !strings.HasPrefix(err.Error(), path+": is larger than 1 MiB") {
		t.Errorf("large file: %v", err)
	}
	for _, want := range []string{"/one", "/two"} {
		write("\ufeffdata_dir: " + want + "\r\n")
		doc, err := Load(path, Options{})
		if err != nil {
			t.Fatal(err)
		}
		got := defaults()
		if err := doc.Decode(&got); err != nil || got.DataDir != want {
			t.Errorf("got %q, %v; want %q", got.DataDir, err, want)
		}
	}
	write("listen: {}\n") // a deleted key is gone in the next load
	doc, err := Load(path, Options{})
	if err != nil {
		t.Fatal(err)
	}
	got := defaults()
	if err := doc.Decode(&got); err != nil || got.DataDir != defaults().DataDir {
		t.Errorf("after deleting the key: %q, %v", got.DataDir, err)
	}
}
