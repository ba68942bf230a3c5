package config

import (
	"net/netip"
	"time"

	"github.com/pimrelay/pimrelay/sdk"
)

// settings is a configuration with a field of every kind.
type settings struct {
	DataDir      string                `koanf:"data_dir"`
	Listen       listen                `koanf:"listen"`
	Forwarders   map[string]forwarder  `koanf:"forwarders"`
	Peers        map[string]*peer      `koanf:"peers"`
	Limits       map[string]int        `koanf:"limits"`
	Rules        []rule                `koanf:"rules"`
	Admin        *admin                `koanf:"admin"`
	Log          log                   `koanf:"log"`
	DrainTimeout time.Duration         `koanf:"drain_timeout"`
	Numbers      numbers               `koanf:"numbers"`
	Extra        any                   `koanf:"extra"`
	Headers      map[string]sdk.Secret `koanf:"headers"`
	Untagged     string
	Skipped      string `koanf:"-"`
}

type listen struct {
	Address   string         `koanf:"address"`
	MaxBody   sdk.Size       `koanf:"max_body"`
	AllowFrom []netip.Prefix `koanf:"allow_from"`
	TLS       struct {
		Mode   string `koanf:"mode"`
		Strict bool   `koanf:"strict"`
	} `koanf:"tls"`
}

type forwarder struct {
	lane
	Config map[string]any    `koanf:"config"`
	Fields map[string]string `koanf:"fields"`
	Rate   rate              `koanf:"rate"`
}

// SetDefaults implements defaulter.
func (f *forwarder) SetDefaults() {
	f.Plugin = "http"
	f.Rate = rate{PerSecond: 50, Burst: 100}
}

type lane struct {
	Plugin  string       `koanf:"plugin"`
	Retry   sdk.Duration `koanf:"retry"`
	Timeout sdk.Duration `koanf:"timeout"`
}

type rate struct {
	PerSecond float64 `koanf:"per_second"`
	Burst     int     `koanf:"burst"`
}

type peer struct {
	URL string `koanf:"url"`
}

// SetDefaults implements defaulter.
func (p *peer) SetDefaults() { p.URL = "http://default" }

type rule struct {
	Match string   `koanf:"match"`
	Tags  []string `koanf:"tags"`
}

// SetDefaults implements defaulter.
func (r *rule) SetDefaults() { r.Match = "true" }

type admin struct {
	Address string     `koanf:"address"`
	Token   sdk.Secret `koanf:"token"`
}

// SetDefaults implements defaulter.
func (a *admin) SetDefaults() { a.Address = "127.0.0.1:1" }

type log struct {
	Level  string `koanf:"level"`
	Debug  *bool  `koanf:"debug"`
	Tokens []sdk.Secret
}

type numbers struct {
	Int8   int8    `koanf:"int8"`
	Uint16 uint16  `koanf:"uint16"`
	Int    int     `koanf:"int"`
	Uint64 uint64  `koanf:"uint64"`
	Float  float32 `koanf:"float"`
}

// defaults are what Decode finds in the struct.
func defaults() settings {
	return settings{
		DataDir:      "/var/lib/pimrelay",
		Listen:       listen{Address: ":443", MaxBody: 10 << 20, AllowFrom: []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}},
		Limits:       map[string]int{"kept": 1, "changed": 2},
		Log:          log{Level: "info"},
		DrainTimeout: 20 * time.Second,
		Untagged:     "kept",
	}
}
