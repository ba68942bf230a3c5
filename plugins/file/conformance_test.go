package file

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"

	"github.com/pimrelay/pimrelay/sdk/sdktest"
)

// lines is the file that a forwarder writes, as a destination: each line that
// has come to its end is an event.
type lines struct {
	path string

	mu      sync.Mutex
	offset  int64 // guarded by mu, as below
	arrived []sdktest.Arrival
}

// Behave makes the directory that the file is in come and go.
func (l *lines) Behave(b sdktest.Behaviour) error {
	directory := filepath.Dir(l.path)
	switch b {
	case sdktest.Accept:
		if err := os.Rename(directory+".away", directory); err != nil && !errors.Is(err, os.ErrNotExist) {
			return err
		}
		return nil
	case sdktest.Gone:
		return os.Rename(directory, directory+".away")
	}
	return fmt.Errorf("a file does not %s: %w", b, errors.ErrUnsupported)
}

func (l *lines) Arrived() ([]sdktest.Arrival, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	file, err := os.Open(l.path)
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer file.Close()
	added, err := io.ReadAll(io.NewSectionReader(file, l.offset, math.MaxInt64-l.offset))
	if err != nil {
		return nil, err
	}
	for line := range bytes.Lines(added) {
		if !bytes.HasSuffix(line, []byte("\n")) {
			break // being written
		}
		l.offset += int64(len(line))
		l.arrived = append(l.arrived, event(bytes.TrimSuffix(line, []byte("\n"))))
	}
	return slices.Clone(l.arrived), nil
}

// event is the event of a line: JSON as it was sent, or text in a string.
func event(line []byte) sdktest.Arrival {
	var attributes struct {
		ID string `json:"id"`
	}
	if json.Unmarshal(line, &attributes) == nil && attributes.ID != "" {
		return sdktest.Arrival{Key: attributes.ID, Payload: line}
	}
	var text string
	if json.Unmarshal(line, &text) == nil {
		return sdktest.Arrival{Payload: []byte(text)}
	}
	return sdktest.Arrival{Payload: line}
}

// The forwarder passes the suite in process and through gRPC.
func TestConformance(t *testing.T) {
	t.Parallel()
	for name, newForwarder := range map[string]sdktest.Maker{"in process": sdktest.InProcess(New), "over gRPC": sdktest.OverGRPC(New)} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			directory := filepath.Join(t.TempDir(), "out")
			if err := os.Mkdir(directory, 0o700); err != nil {
				t.Fatal(err)
			}
			path := filepath.Join(directory, "events.jsonl")
			configuration := func(keys map[string]any) json.RawMessage {
				raw, err := json.Marshal(keys)
				if err != nil {
					t.Fatal(err)
				}
				return raw
			}
			sdktest.Run(t, sdktest.Subject{
				New:         newForwarder,
				Config:      configuration(map[string]any{"path": path}),
				Destination: &lines{path: path},
				Faulty: []sdktest.Faulty{
					{Name: "no path", Config: configuration(map[string]any{}), Field: "path"},
					{Name: "a directory", Config: configuration(map[string]any{"path": directory}), Field: "path"},
					{Name: "a path with NUL", Config: configuration(map[string]any{"path": "a\x00b"}), Field: "path"},
					{Name: "fsync sometimes", Config: configuration(map[string]any{"path": path, "fsync": "sometimes"}), Field: "fsync"},
					{Name: "a mode that locks the owner out", Config: configuration(map[string]any{"path": path, "mode": "0044"}), Field: "mode"},
				},
			})
		})
	}
}
