package config

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"regexp"
	"strconv"
	"strings"
	"unicode/utf8"

	"go.yaml.in/yaml/v3"
)

// maxFile is the largest file that is read.
const maxFile = 1 << 20

// parseYAML is the root mapping of data, which must hold one YAML document, or
// the problem with it. The problem names no file.
func parseYAML(data []byte) (*yaml.Node, *Problem) {
	if len(data) > maxFile {
		return nil, &Problem{Message: "is larger than 1 MiB: keep bulky values in files of their own and write ${file:/path}"}
	}
	if problem := checkText(data); problem != nil {
		return nil, problem
	}
	source := &lineReader{rest: data}
	decoder := yaml.NewDecoder(source)
	var document yaml.Node
	if err := decoder.Decode(&document); errors.Is(err, io.EOF) {
		return nil, &Problem{Message: "is empty: write at least one section"}
	} else if err != nil {
		return nil, syntaxProblem(err, source.line, data)
	}
	var second yaml.Node
	if err := decoder.Decode(&second); err == nil {
		return nil, &Problem{Line: second.Line, Message: "a second YAML document begins here: keep one document in the file"}
	} else if !errors.Is(err, io.EOF) {
		return nil, syntaxProblem(err, source.line, data)
	}
	return rootMapping(document.Content[0])
}

// rootMapping is root if it is a mapping, or the problem with it.
func rootMapping(root *yaml.Node) (*yaml.Node, *Problem) {
	switch {
	case root.Kind == yaml.MappingNode:
		return root, nil
	case root.Kind == yaml.ScalarNode && root.ShortTag() == "!!null":
		return nil, &Problem{Message: "is empty: write at least one section"}
	case root.Kind == yaml.SequenceNode:
		return nil, &Problem{Line: root.Line, Message: "must hold a mapping of sections (got a list)"}
	default:
		return nil, &Problem{Line: root.Line, Message: "must hold a mapping of sections (got a single value)"}
	}
}

// checkText is the first place where data is no text, or nil.
func checkText(data []byte) *Problem {
	line := 1
	for i := 0; i < len(data); {
		r, size := utf8.DecodeRune(data[i:])
		switch {
		case r == '\n':
			line++
		case r == utf8.RuneError && size == 1:
			return &Problem{Line: line, Message: fmt.Sprintf("byte 0x%02x is not UTF-8: save the file as UTF-8", data[i])}
		case r == '\r' && !bytes.HasPrefix(data[i:], []byte("\r\n")), r == '\u0085', r == '\u2028', r == '\u2029':
			return &Problem{Line: line, Message: fmt.Sprintf("U+%04X ends a line in YAML, but not in most editors: end lines with a line feed", r)}
		case isControl(r) && r != '\t' && r != '\r':
			return &Problem{Line: line, Message: fmt.Sprintf("control character 0x%02x: remove it, or write it as an escape in double quotes", r)}
		}
		i += size
	}
	return nil
}

// isControl reports whether r is an ASCII control character.
func isControl(r rune) bool { return r < ' ' || r == 0x7f }

// lineReader hands out one line a call, so that line tells how far a parser
// has come when it gives up.
type lineReader struct {
	rest  []byte
	line  int  // of what was handed out last, from 1
	split bool // the last line was handed out in part
}

// Read implements io.Reader.
func (r *lineReader) Read(p []byte) (int, error) {
	if len(r.rest) == 0 {
		return 0, io.EOF
	}
	end := bytes.IndexByte(r.rest, '\n') + 1
	if end == 0 {
		end = len(r.rest)
	}
	n := copy(p, r.rest[:end])
	r.rest = r.rest[n:]
	if !r.split {
		r.line++
	}
	r.split = n < end
	return n, nil
}

// yamlLine is the line in an error of the YAML package.
var yamlLine = regexp.MustCompile(`^line (\d+): `)

// syntaxProblem is an error of the YAML parser as a problem. reached is the
// line that the parser was reading when it gave up.
//
// The parser reports the right line for an error within a token, but for a
// token in the wrong place it reports where the construct around it began,
// less one. In that case the way to the line leads through reached.
func syntaxProblem(err error, reached int, data []byte) *Problem {
	reported, message := splitError(err)
	line := reported
	if reported == 0 || misplacedToken(message) {
		line = firstLine(message, reached, data)
	}
	if tabIndented(data, line) {
		return &Problem{Line: line, Message: "is not valid YAML: the line is indented with a tab, use spaces"}
	}
	return &Problem{Line: line, Message: "is not valid YAML: " + remedy(message)}
}

// splitError is the line in an error of the YAML parser, 0 if there is none,
// and the rest of its message.
func splitError(err error) (line int, message string) {
	message = strings.TrimPrefix(err.Error(), "yaml: ")
	if match := yamlLine.FindStringSubmatch(message); match != nil {
		line, _ = strconv.Atoi(match[1]) // digits
		message = message[len(match[0]):]
	}
	return line, message
}

// maxLookahead is how many lines the parser may have read beyond an error.
const maxLookahead = 4

// firstLine is the line that brought the error with message about: the parser
// reads ahead of it up to the line reached, but says the same of a file that
// ends with the line.
func firstLine(message string, reached int, data []byte) int {
	line := reached
	for line > 1 && line > reached-maxLookahead {
		err := parseAll(firstLines(data, line-1))
		if err == nil {
			break
		}
		if _, earlier := splitError(err); earlier != message {
			break
		}
		line--
	}
	return line
}

// firstLines is the beginning of data with n lines.
func firstLines(data []byte, n int) []byte {
	end := 0
	for range n {
		length := bytes.IndexByte(data[end:], '\n') + 1
		if length == 0 {
			return data
		}
		end += length
	}
	return data[:end]
}

// parseAll is the error of the first document in data that is not valid.
func parseAll(data []byte) error {
	decoder := yaml.NewDecoder(bytes.NewReader(data))
	for {
		var document yaml.Node
		if err := decoder.Decode(&document); errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return err
		}
	}
}

// misplacedToken reports whether message is about a token in the wrong place.
func misplacedToken(message string) bool {
	return strings.HasPrefix(message, "did not find expected ") &&
		!strings.Contains(message, "character") && !strings.Contains(message, "number")
}

// tabIndented reports whether there is a tab before the text of a line.
func tabIndented(data []byte, line int) bool {
	text := bytes.TrimLeft(data[len(firstLines(data, line-1)):], " ")
	return len(text) > 0 && text[0] == '\t'
}

// remedies say what a message of the YAML parser usually means in a
// configuration. The parser's own words do not help, and one of them quotes
// the value.
var remedies = []struct{ message, remedy string }{
	{"did not find expected ',' or", "inside { } and [ ] close what was opened, and put values with ${…}, brackets or commas in quotes"},
	{"did not find expected node content", "a value is missing, or a bracket or quote is out of place"},
	{"did not find expected key", "check the indentation, and quote marks inside quotes"},
	{"did not find expected '-' indicator", "check the indentation of the list"},
	{"did not find expected <document start>", "text follows the end of the document"},
	{"did not find expected alphabetic or numeric character", "put values that begin with * or & in quotes"},
	{"unknown anchor", "put values that begin with * or & in quotes"},
	{"mapping values are not allowed in this context", `check the indentation, and put values that contain ": " in quotes`},
	{"could not find expected ':'", `write "key: value", and check the indentation`},
	{"found character that cannot start any token", "put values that begin with @, ` or % in quotes"},
	{"found unexpected end of stream", "the quotes that open here are never closed"},
	{"found unknown escape character", "write a backslash in double quotes as \\\\, or use single quotes"},
}

// remedy is what to do about a message of the YAML parser.
func remedy(message string) string {
	for _, known := range remedies {
		if strings.HasPrefix(message, known.message) {
			return known.remedy
		}
	}
	return message
}
