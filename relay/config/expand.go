package config

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"unicode/utf8"
)

// maxReferenced is the largest file that ${file:/path} takes.
const maxReferenced = 64 << 10

// expand sets the value of e to text with its references resolved. What they
// resolve to is not searched for references again.
func (d *Document) expand(e *entry, text string) {
	var out strings.Builder
	whole := false
	for rest := text; rest != ""; {
		start := strings.Index(rest, "${")
		if start < 0 {
			out.WriteString(rest)
			break
		}
		if start > 0 && rest[start-1] == '$' { // $${ is the text ${
			out.WriteString(rest[:start-1] + "${")
			rest = rest[start+2:]
			continue
		}
		out.WriteString(rest[:start])
		body, after, closed := strings.Cut(rest[start+2:], "}")
		if !closed {
			e.faults = append(e.faults, `"${" is never closed: write ${env:NAME} or ${file:/path}, or $${ if the text ${ is meant`)
			break
		}
		value, err := d.resolve(body)
		if err != nil {
			e.faults = append(e.faults, err.Error())
		} else {
			e.resolved = append(e.resolved, value)
		}
		out.WriteString(value)
		whole = start == 0 && after == "" && len(rest) == len(text)
		e.ref = withReference
		rest = after
	}
	if whole {
		e.ref = wholeReference
	}
	e.value = out.String()
	if e.ref == withReference {
		e.resolved = append(e.resolved, out.String())
	}
	d.resolved = append(d.resolved, e.resolved...)
}

// environmentName is what ${env:NAME} takes as a name.
var environmentName = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_]*$`)

// resolve is the value of the reference ${body}. The error shows nothing of
// body unless it is a well-formed reference, since it may be part of a secret
// that happens to contain "${".
func (d *Document) resolve(body string) (string, error) {
	kind, name, _ := strings.Cut(body, ":")
	switch {
	case kind == "env" && environmentName.MatchString(name):
		value, ok := d.env[name]
		if !ok {
			return "", fmt.Errorf("${env:%s}: the environment variable is not set: set it, or remove the reference", name)
		}
		if !utf8.ValidString(value) {
			return "", fmt.Errorf("${env:%s}: the environment variable is not UTF-8 text", name)
		}
		return value, nil
	case kind == "file" && filepath.IsAbs(name):
		value, err := readReferenced(name)
		if err != nil {
			return "", fmt.Errorf("${file:%s}: %w", name, err)
		}
		return value, nil
	case kind == "env":
		return "", errors.New("the name in ${env:NAME} must consist of letters, digits and underscores")
	case kind == "file":
		return "", errors.New("the path in ${file:/path} must be absolute")
	default:
		return "", errors.New("a reference must be ${env:NAME} or ${file:/path}: write $${ if the text ${ is meant")
	}
}

// readReferenced is the text in the file at path without the line break that
// most editors put at its end.
func readReferenced(path string) (string, error) {
	info, err := os.Stat(path)
	if err != nil {
		return "", fmt.Errorf("%w: create the file, or correct the path", cause(err))
	}
	if !info.Mode().IsRegular() { // a pipe or a device could block
		return "", errors.New("must be a regular file")
	}
	file, err := os.Open(path)
	if err != nil {
		return "", fmt.Errorf("%w: let the user that runs this process read it", cause(err))
	}
	defer func() { _ = file.Close() }() // opened for reading: nothing is lost
	data, err := io.ReadAll(io.LimitReader(file, maxReferenced+1))
	switch {
	case err != nil:
		return "", cause(err)
	case len(data) > maxReferenced:
		return "", errors.New("must have at most 64 KiB")
	case !utf8.Valid(data):
		return "", errors.New("must be UTF-8 text")
	}
	text := string(data)
	if cut, ok := strings.CutSuffix(text, "\n"); ok {
		text = strings.TrimSuffix(cut, "\r")
	}
	return text, nil
}

// cause is err without the operation and path that fs.PathError adds.
func cause(err error) error {
	if at, ok := errors.AsType[*fs.PathError](err); ok {
		return at.Err
	}
	return err
}
