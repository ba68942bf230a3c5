package subscription

import (
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/pimrelay/pimrelay/sdk"
)

const (
	stateFile    = "state.json"
	stateVersion = 1
	// maxState bounds the file. Twenty sources with twenty subscriptions of
	// all event types need about 1 MiB.
	maxState = 16 << 20
	// secretBytes is how many random bytes make a generated secret and the
	// key of the hashes; both are written in hexadecimal.
	secretBytes = 32
)

// State is what the relay must remember about its subscriptions, in state.json
// below the data directory: ids, generated secrets, and what was last sent. The
// file is readable by its owner only. It is safe for concurrent use; only one
// process may have it open, which the data directory's lock sees to.
type State struct {
	dir string

	mu      sync.Mutex // guards what follows, and the file
	content content
	turns   map[string]chan struct{}
}

// content is the file. It is replaced as a whole and never changed in place.
type content struct {
	Version int `json:"version"`
	// HashKey is the key of SecretsHash: whoever sees a hash alone cannot
	// try secrets against it.
	HashKey string                 `json:"hash_key"`
	Sources map[string]sourceState `json:"sources"`
}

// sourceState is what is remembered of one source.
type sourceState struct {
	// GeneratedPrimary is the secret that stands in for one that the
	// configuration does not give.
	GeneratedPrimary string `json:"generated_primary,omitempty"`
	// GeneratedReplaced is when the platform had confirmed, for all
	// subscriptions, the configuration's secret in place of the generated
	// one; zero while the latter is in use.
	GeneratedReplaced time.Time                    `json:"generated_replaced,omitzero"`
	SubscriberID      string                       `json:"subscriber_id,omitempty"`
	Subscriptions     map[string]subscriptionState `json:"subscriptions,omitempty"`
}

// subscriptionState is what is remembered of one subscription.
type subscriptionState struct {
	ID string `json:"id"`
	// Patterns are the declared events, and Events what they stood for when
	// the subscription was made: a later release may know more types, and
	// must not subscribe to them by itself.
	Patterns []string `json:"patterns"`
	Events   []string `json:"events"`
	// SecretsHash is the keyed hash of the secrets that were last sent.
	SecretsHash string `json:"secrets_hash"`
}

// Open reads state.json in dir, or begins with an empty state if there is none.
// A damaged file is set aside as state.json.damaged-<time>, logged as an error,
// and replaced: subscriptions are then found again by their URLs, and generated
// secrets are made anew. A file of a later version is an error, as is one that
// cannot be read.
func Open(dir string, logger *slog.Logger) (*State, error) {
	s := &State{dir: dir, turns: map[string]chan struct{}{}}
	path := filepath.Join(dir, stateFile)
	text, err := readBounded(path)
	if errors.Is(err, fs.ErrNotExist) {
		s.content = newContent()
		return s, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read the subscriptions' state: %w", err)
	}
	if err := os.Chmod(path, 0o600); err != nil {
		return nil, fmt.Errorf("restrict the subscriptions' state to its owner: %w", err)
	}
	read, damage := parseContent(text)
	if damage == nil && read.Version > stateVersion {
		return nil, fmt.Errorf("%s has version %d, and this release reads version %d: use the later release that wrote it",
			path, read.Version, stateVersion)
	}
	if damage == nil {
		s.content = read
		return s, nil
	}
	aside := path + ".damaged-" + time.Now().UTC().Format("20060102T150405.000000000Z")
	if err := os.Rename(path, aside); err != nil {
		return nil, fmt.Errorf("set the damaged subscriptions' state aside: %w", err)
	}
	logger.Error("subscription state was damaged, generated secrets are lost and will be made anew",
		"err", fmt.Errorf("%w (the damaged file is kept as %s)", damage, aside))
	s.content = newContent()
	return s, nil
}

func newContent() content {
	return content{Version: stateVersion, HashKey: randomHex(), Sources: map[string]sourceState{}}
}

func readBounded(path string) ([]byte, error) {
	file, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	return io.ReadAll(io.LimitReader(file, maxState+1))
}

// parseContent reads the file's text; an error means that it is damaged. Of a
// later version it reads no more than the version.
func parseContent(text []byte) (content, error) {
	var header struct {
		Version int `json:"version"`
	}
	var c content
	if len(text) > maxState {
		return c, fmt.Errorf("more than %d bytes", maxState)
	}
	if err := json.Unmarshal(text, &header); err != nil {
		return c, err
	}
	if header.Version > stateVersion {
		return content{Version: header.Version}, nil
	}
	if err := json.Unmarshal(text, &c); err != nil {
		return c, err
	}
	key, err := hex.DecodeString(c.HashKey)
	switch {
	case c.Version < 1:
		return c, errors.New("no version")
	case err != nil || len(key) != secretBytes:
		return c, errors.New("no hash_key")
	}
	for name, source := range c.Sources {
		if n := len(source.GeneratedPrimary); n > 0 && n != hex.EncodedLen(secretBytes) {
			return c, fmt.Errorf("the generated secret of source %q has %d characters", name, n)
		}
	}
	if c.Sources == nil {
		c.Sources = map[string]sourceState{}
	}
	return c, nil
}

// source returns what is remembered of a source. The maps and slices in it must
// not be changed.
func (s *State) source(name string) sourceState {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.content.Sources[name]
}

// turn is a channel of one element for the owner of some subscribers, which is a
// PIM with a client id. Whoever looks for a subscriber and creates what is
// missing holds it: of two sources that declare the same subscriber, only one
// may find it missing.
func (s *State) turn(owner string) chan struct{} {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.turns[owner] == nil {
		s.turns[owner] = make(chan struct{}, 1)
	}
	return s.turns[owner]
}

// update changes what is remembered of a source and returns when that is on
// disk. After an error, the state in memory is what it was.
func (s *State) update(name string, change func(*sourceState)) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	text, err := json.Marshal(s.content)
	if err != nil {
		return fmt.Errorf("write the subscriptions' state: %w", err)
	}
	var next content // a deep copy
	if err := json.Unmarshal(text, &next); err != nil {
		return fmt.Errorf("write the subscriptions' state: %w", err)
	}
	source := next.Sources[name]
	if source.Subscriptions == nil {
		source.Subscriptions = map[string]subscriptionState{}
	}
	change(&source)
	next.Sources[name] = source
	if text, err = json.MarshalIndent(next, "", "  "); err != nil {
		return fmt.Errorf("write the subscriptions' state: %w", err)
	}
	if err := writeFile(s.dir, stateFile, append(text, '\n')); err != nil {
		return fmt.Errorf("write the subscriptions' state: %w", err)
	}
	s.content = next
	return nil
}

// hash is the keyed hash of a pair of secrets.
func (s *State) hash(primary, secondary sdk.Secret) string {
	s.mu.Lock()
	key := s.content.HashKey
	s.mu.Unlock()
	mac := hmac.New(sha256.New, []byte(key))
	for _, secret := range []sdk.Secret{primary, secondary} {
		mac.Write(binary.BigEndian.AppendUint64(nil, uint64(len(secret))))
		io.WriteString(mac, string(secret))
	}
	return hex.EncodeToString(mac.Sum(nil))
}

// writeFile replaces a file so that after a crash at any moment it holds either
// the old text or the new one, and returns when the new one is on disk.
func writeFile(dir, name string, text []byte) (err error) {
	temporary := filepath.Join(dir, name+".tmp")
	if err := os.Remove(temporary); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	file, err := os.OpenFile(temporary, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			os.Remove(temporary)
		}
	}()
	_, err = file.Write(text)
	err = errors.Join(err, file.Sync(), file.Close())
	if err != nil {
		return err
	}
	if err := os.Rename(temporary, filepath.Join(dir, name)); err != nil {
		return err
	}
	return syncDir(dir)
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// randomHex is a fresh secret: 32 random bytes in hexadecimal.
func randomHex() string {
	var bytes [secretBytes]byte
	rand.Read(bytes[:]) // never fails: it ends the program instead
	return hex.EncodeToString(bytes[:])
}
