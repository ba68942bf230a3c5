package subscription

import (
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/pimrelay/pimrelay/sdk"
)

func TestValidate(t *testing.T) {
	t.Parallel()
	many := Subscriptions{}
	for i := range 21 {
		many[fmt.Sprintf("key%d", i)] = Subscription{Events: []string{"a.b"}}
	}
	long := strings.Repeat("é", 256)
	tests := []struct {
		name   string
		change func(*Source)
		want   []string // beginnings
	}{
		{"as it should be", func(*Source) {}, nil},
		{"no subscriber", func(s *Source) { s.Subscriber = Subscriber{} }, []string{
			"subscriber.name: must be set", "subscriber.technical_email: must be an e-mail address"}},
		{"a long name", func(s *Source) { s.Subscriber.Name = long }, []string{"subscriber.name: must have at most 255 characters"}},
		{"a name with a newline", func(s *Source) { s.Subscriber.Name = "a\nb" }, []string{"subscriber.name: must have at most"}},
		{"an e-mail with a name", func(s *Source) { s.Subscriber.TechnicalEmail = "Ops <ops@example.com>" }, []string{
			"subscriber.technical_email: must be an e-mail address"}},
		{"no subscriptions", func(s *Source) { s.Subscriptions = nil }, []string{"subscriptions: must declare at least one"}},
		{"too many", func(s *Source) { s.Subscriptions = many }, []string{"subscriptions: must declare at most 20 subscriptions"}},
		{"the reserved key", func(s *Source) { s.Subscriptions = Subscriptions{"notifications": {Events: []string{"a.b"}}} }, []string{
			"subscriptions.notifications: must have another key"}},
		{"a key with a slash", func(s *Source) { s.Subscriptions = Subscriptions{"a/b": {Events: []string{"a.b"}}} }, []string{
			"subscriptions.a/b: must have a key of at most 63"}},
		{"an upper-case key", func(s *Source) { s.Subscriptions = Subscriptions{"A": {Events: []string{"a.b"}}} }, []string{
			"subscriptions.A: must have a key of at most 63"}},
		{"no events, and a filter of two lines", func(s *Source) { s.Subscriptions = Subscriptions{"a": {Filter: "x\ny"}} }, []string{
			"subscriptions.a.events: must name at least one event type", "subscriptions.a.filter: must be one line"}},
		{"the longest filter", func(s *Source) {
			s.Subscriptions = Subscriptions{"a": {Events: []string{"a.b"}, Filter: strings.Repeat("é", 500)}}
		}, nil},
		{"a filter beyond", func(s *Source) {
			s.Subscriptions = Subscriptions{"a": {Events: []string{"a.b"}, Filter: strings.Repeat("é", 501)}}
		}, []string{"subscriptions.a.filter: must have at most 500 characters (has 501)"}},
		{"no secrets", func(s *Source) { s.Secrets = Secrets{} }, nil},
		{"the longest secret", func(s *Source) { s.Secrets = Secrets{Primary: sdk.Secret(long)} }, nil},
		{"secrets too short and too long", func(s *Source) { s.Secrets = Secrets{Primary: "short", Secondary: sdk.Secret(long + "x")} }, []string{
			"secrets.primary: must have 16 to 256 characters (has 5)", "secrets.secondary: must have 16 to 256 characters (has 257)"}},
		{"what the platform shows in place of a secret", func(s *Source) { s.Secrets = Secrets{Primary: redactedSecret} }, []string{
			"secrets.primary: must have 16 to 256"}},
		{"a secret with a line break", func(s *Source) { s.Secrets = Secrets{Primary: primary + "\n"} }, []string{"secrets.primary: must be UTF-8"}},
		{"a secret of bytes", func(s *Source) { s.Secrets = Secrets{Primary: primary + "\xff"} }, []string{"secrets.primary: must be UTF-8"}},
		{"only the secondary secret", func(s *Source) { s.Secrets = Secrets{Secondary: secondary} }, []string{
			"secrets.secondary: must not be set without primary"}},
		{"the same secret twice", func(s *Source) { s.Secrets = Secrets{Primary: primary, Secondary: primary} }, []string{
			"secrets.secondary: must differ from primary"}},
		{"URLs", func(s *Source) { s.PlatformURL, s.BaseURL, s.PIM.URL = "", "http://a.example", "x" }, []string{
			"pim.url: must be an https URL", "platform_url: must be set", "the public URL of the source must begin with https://"}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			source := catalog()
			test.change(&source)
			var got []string
			for i, fault := range source.Validate() {
				text := fault.Error()
				if i < len(test.want) && strings.HasPrefix(text, test.want[i]) {
					text = test.want[i]
				}
				got = append(got, text)
			}
			if diff := cmp.Diff(test.want, got, cmpopts.EquateEmpty()); diff != "" {
				t.Errorf("faults (-want +got):\n%s", diff)
			}
		})
	}
}
