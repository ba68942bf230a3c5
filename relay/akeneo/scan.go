package akeneo

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
)

// maxDepth is how deeply arrays and objects may nest in a delivery. What the
// platform sends nests about ten deep.
const maxDepth = 512

var errNoObject = errors.New("not a JSON object")

// members walks the JSON object that text holds and hands over each member, in
// order: name and value as they are written, both slices of text. It checks the
// whole of text as RFC 8259 has it, in one pass and without building values:
// this stands on the way of every event, and a delta may be megabytes long.
// That text is UTF-8 is the caller's business.
func members(text []byte, visit func(name, value []byte)) error {
	s := scanner{in: text}
	if s.space() != '{' {
		return errNoObject
	}
	if err := s.object(1, visit); err != nil {
		return err
	}
	if s.space(); s.pos < len(s.in) {
		return s.fault("text after the end of the object")
	}
	return nil
}

// scanner is a position in JSON text.
type scanner struct {
	in  []byte
	pos int
}

func (s *scanner) fault(problem string) error {
	return fmt.Errorf("not valid JSON: %s at byte %d", problem, s.pos)
}

// peek is the byte at the position, or 0 at the end.
func (s *scanner) peek() byte {
	if s.pos < len(s.in) {
		return s.in[s.pos]
	}
	return 0
}

// space passes white space and returns the byte after it, or 0 at the end.
func (s *scanner) space() byte {
	for ; s.pos < len(s.in); s.pos++ {
		switch s.in[s.pos] {
		case ' ', '\t', '\n', '\r':
		default:
			return s.in[s.pos]
		}
	}
	return 0
}

// value passes one value, which begins at the position and lies within depth
// objects and arrays.
func (s *scanner) value(depth int) error {
	switch c := s.peek(); {
	case c == '"':
		return s.text()
	case depth == maxDepth && (c == '{' || c == '['):
		return s.fault(fmt.Sprintf("more than %d levels", maxDepth))
	case c == '{':
		return s.object(depth+1, nil)
	case c == '[':
		return s.array(depth + 1)
	case c == '-' || c >= '0' && c <= '9':
		return s.number()
	}
	for _, literal := range [...]string{"null", "true", "false"} {
		if bytes.HasPrefix(s.in[s.pos:], []byte(literal)) {
			s.pos += len(literal)
			return nil
		}
	}
	return s.fault("no value")
}

// object passes an object, whose brace is at the position and whose values lie
// within depth objects and arrays.
func (s *scanner) object(depth int, visit func(name, value []byte)) error {
	s.pos++
	if s.space() == '}' {
		s.pos++
		return nil
	}
	for {
		name := s.pos
		if err := s.text(); err != nil {
			return err
		}
		nameEnd := s.pos
		if s.space() != ':' {
			return s.fault("no colon after a name")
		}
		s.pos++
		s.space()
		value := s.pos
		if err := s.value(depth); err != nil {
			return err
		}
		if visit != nil {
			visit(s.in[name:nameEnd], s.in[value:s.pos])
		}
		if done, err := s.next('}'); done || err != nil {
			return err
		}
	}
}

// array passes an array, whose bracket is at the position and whose elements
// lie within depth objects and arrays.
func (s *scanner) array(depth int) error {
	s.pos++
	if s.space() == ']' {
		s.pos++
		return nil
	}
	for {
		if err := s.value(depth); err != nil {
			return err
		}
		if done, err := s.next(']'); done || err != nil {
			return err
		}
	}
}

// next passes a comma and the space behind it, or the closing byte, and
// reports whether it was the latter.
func (s *scanner) next(closing byte) (done bool, err error) {
	switch s.space() {
	case closing:
		s.pos++
		return true, nil
	case ',':
		s.pos++
		s.space()
		return false, nil
	}
	return false, s.fault("neither a comma nor an end")
}

// text passes a string with its quotes.
func (s *scanner) text() error {
	if s.peek() != '"' {
		return s.fault("no string")
	}
	for s.pos++; ; s.pos++ {
		for s.pos < len(s.in) && plain[s.in[s.pos]] {
			s.pos++
		}
		switch c := s.peek(); {
		case c == '"':
			s.pos++
			return nil
		case c == '\\':
			if err := s.escape(); err != nil {
				return err
			}
		case s.pos == len(s.in):
			return s.fault("a string without end")
		default:
			return s.fault("a control character in a string")
		}
	}
}

// plain are the bytes that stand for themselves in a string.
var plain = func() (set [256]bool) {
	for c := range set {
		set[c] = c >= ' ' && c != '"' && c != '\\'
	}
	return set
}()

// escape passes an escape sequence except for its last byte.
func (s *scanner) escape() error {
	s.pos++
	switch s.peek() {
	case '"', '\\', '/', 'b', 'f', 'n', 'r', 't':
		return nil
	case 'u':
		for range 4 {
			s.pos++
			c := s.peek() | 0x20 // lower case
			if (c < '0' || c > '9') && (c < 'a' || c > 'f') {
				return s.fault("an escape without four hexadecimal digits")
			}
		}
		return nil
	}
	return s.fault("an unknown escape")
}

// number passes a number.
func (s *scanner) number() error {
	if s.peek() == '-' {
		s.pos++
	}
	if s.peek() == '0' {
		s.pos++
	} else if !s.digits() {
		return s.fault("a number without digits")
	}
	if s.peek() == '.' {
		s.pos++
		if !s.digits() {
			return s.fault("a number without digits after its point")
		}
	}
	if s.peek()|0x20 != 'e' {
		return nil
	}
	s.pos++
	if c := s.peek(); c == '+' || c == '-' {
		s.pos++
	}
	if !s.digits() {
		return s.fault("a number without digits in its exponent")
	}
	return nil
}

// digits passes decimal digits and reports whether there was one.
func (s *scanner) digits() bool {
	start := s.pos
	for s.pos < len(s.in) && s.in[s.pos] >= '0' && s.in[s.pos] <= '9' {
		s.pos++
	}
	return s.pos > start
}

// named reports whether a member's name, as it is written, spells want.
func named(name []byte, want string) bool {
	if bytes.IndexByte(name, '\\') < 0 {
		return string(name[1:len(name)-1]) == want
	}
	return unquote(name) == want
}

// unquote returns what a string that the scanner has passed stands for. Half a
// surrogate pair becomes U+FFFD.
func unquote(text []byte) string {
	if bytes.IndexByte(text, '\\') < 0 {
		return string(text[1 : len(text)-1])
	}
	var s string
	if err := json.Unmarshal(text, &s); err != nil {
		return ""
	}
	return s
}
