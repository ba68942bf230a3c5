package sdk_test

import (
	"bytes"
	"encoding/json"
	"encoding/xml"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"strings"
	"testing"
	"time"

	"github.com/pimrelay/pimrelay/sdk"
)

func TestSecretIsNotPrinted(t *testing.T) {
	t.Parallel()
	const secret = sdk.Secret("hunter2")
	type section struct {
		Token  sdk.Secret
		Tokens []sdk.Secret
		Nested *struct{ Token sdk.Secret }
		Keyed  map[string]sdk.Secret
	}
	values := map[string]any{
		"alone":   secret,
		"list":    []sdk.Secret{secret},
		"struct":  section{Token: secret, Tokens: []sdk.Secret{secret}, Keyed: map[string]sdk.Secret{"a": secret}},
		"pointer": &section{Nested: &struct{ Token sdk.Secret }{secret}},
		"error":   fmt.Errorf("connect with %s: %w", secret, errors.ErrUnsupported),
	}
	for name, value := range values {
		shown := map[string]string{}
		verbs := []string{"%v", "%+v", "%#v"}
		if name == "alone" || name == "list" {
			verbs = append(verbs, "%s", "%q", "%x", "%X")
		}
		for _, verb := range verbs {
			shown[verb] = fmt.Sprintf(verb, value)
		}
		encoded, err := json.Marshal(value)
		shown["json"] = string(encoded)
		if err != nil {
			t.Errorf("%s as JSON: %v", name, err)
		}
		var text, structured bytes.Buffer
		slog.New(slog.NewTextHandler(&text, nil)).Info("connected", "with", value)
		slog.New(slog.NewJSONHandler(&structured, nil)).Info("connected", slog.Group("with", "value", value))
		shown["slog text"], shown["slog json"] = text.String(), structured.String()
		for how, out := range shown {
			for _, form := range []string{"hunter2", fmt.Sprintf("%x", "hunter2"), fmt.Sprintf("%X", "hunter2")} {
				if strings.Contains(out, form) {
					t.Errorf("%s with %s shows the secret: %s", name, how, out)
				}
			}
		}
	}
}

func TestSecretSaysWhetherItIsSet(t *testing.T) {
	t.Parallel()
	if got := sdk.Secret("x").String(); got != "[redacted]" {
		t.Errorf("a secret prints as %q", got)
	}
	if got := fmt.Sprintf("%v|%#v", sdk.Secret(""), sdk.Secret("")); got != "|" {
		t.Errorf("an empty secret prints as %q", got)
	}
	type section struct {
		Token sdk.Secret `xml:"token,attr"`
	}
	out, err := xml.Marshal(section{"hunter2"})
	if err != nil || strings.Contains(string(out), "hunter2") {
		t.Errorf("as XML: %s, %v", out, err)
	}
	var read struct{ Token sdk.Secret }
	if err := json.Unmarshal([]byte(`{"Token":"hunter2"}`), &read); err != nil || string(read.Token) != "hunter2" {
		t.Errorf("read %q, %v", string(read.Token), err)
	}
}

func TestDurationText(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]time.Duration{
		"200ms": 200 * time.Millisecond, "5s": 5 * time.Second, "1h30m": 90 * time.Minute, "0": 0, "0s": 0, "-1s": -time.Second,
	} {
		var d sdk.Duration
		if err := d.UnmarshalText([]byte(text)); err != nil || time.Duration(d) != want {
			t.Errorf("%q reads as %v, %v; want %v", text, d, err, want)
		}
		var again sdk.Duration
		written, err := d.MarshalText()
		if err != nil || again.UnmarshalText(written) != nil || again != d {
			t.Errorf("%v is written as %q and read as %v", d, written, again)
		}
	}
	for _, text := range []string{"", "5", "5 s", "s", "1d", "1h 30m", "hunter2", "9999999h"} {
		d := sdk.Duration(7)
		err := d.UnmarshalText([]byte(text))
		if err == nil || !strings.HasPrefix(err.Error(), "must be a duration with its unit") || d != 7 {
			t.Errorf("%q reads as %v, %v", text, d, err)
		}
	}
}

func TestSizeText(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]sdk.Size{
		"0B": 0, "1B": 1, "1000 B": 1000, "1kB": 1000, "1KB": 1000, "64KiB": 64 << 10, "10MiB": 10 << 20, " 1GiB ": 1 << 30,
		"1.5GiB": 3 << 29, "2GB": 2e9, "1TB": 1e12, "1TiB": 1 << 40,
	} {
		var s sdk.Size
		if err := s.UnmarshalText([]byte(text)); err != nil || s != want {
			t.Errorf("%q reads as %d, %v; want %d", text, int64(s), err, int64(want))
		}
		var again sdk.Size
		written, err := s.MarshalText()
		if err != nil || again.UnmarshalText(written) != nil || again != s {
			t.Errorf("%d is written as %q and read as %d", int64(s), written, int64(again))
		}
	}
	for _, text := range []string{"", "5", "B", "MiB", "-1B", "NaNB", "InfB", "8EiB", "8388608TiB", "1mib", "five MiB", "1MiBB"} {
		s := sdk.Size(7)
		err := s.UnmarshalText([]byte(text))
		if err == nil || !strings.HasPrefix(err.Error(), "must be a size with its unit") || s != 7 {
			t.Errorf("%q reads as %d, %v", text, int64(s), err)
		}
	}
}

func TestSizeString(t *testing.T) {
	t.Parallel()
	for size, want := range map[sdk.Size]string{
		0: "0B", 1: "1B", 1000: "1000B", 1024: "1KiB", 1536: "1536B", 10 << 20: "10MiB", 3 << 40: "3TiB", 1 << 50: "1024TiB",
		math.MaxInt64: "9223372036854775807B", -1024: "-1KiB",
	} {
		if got := size.String(); got != want {
			t.Errorf("%d prints as %q, want %q", int64(size), got, want)
		}
	}
}

func FuzzSize(f *testing.F) {
	for _, seed := range []string{"0B", "1.5GiB", "1e3kB", "0x1pB", "9e99TiB", "-1B", "_1B"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		var s, again sdk.Size
		if s.UnmarshalText([]byte(text)) != nil {
			return
		}
		if s < 0 {
			t.Fatalf("%q reads as %d", text, int64(s))
		}
		if err := again.UnmarshalText([]byte(s.String())); err != nil {
			t.Fatalf("%q reads as %s, which does not read: %v", text, s, err)
		}
		if s < 1<<53 && again != s { // above, a float64 does not hold each number of bytes
			t.Fatalf("%q reads as %s, which reads as %s", text, s, again)
		}
	})
}
