package subscription

import "testing"

func TestSameURL(t *testing.T) {
	t.Parallel()
	const ours = "https://events.example.com/hooks/catalog/products"
	for other, want := range map[string]bool{
		ours:       true,
		ours + "/": true,
		"HTTPS://Events.Example.COM:443/hooks/catalog/products":     true,
		"https://events.example.com//hooks/./x/../catalog/products": true,
		ours + "#top": true,
		" " + ours:    true,
		"https://events.example.com/hooks/catalog/Products":              false,
		"https://events.example.com/hooks/catalog":                       false,
		"https://events.example.com:8443/hooks/catalog/products":         false,
		"https://events.example.com.evil.example/hooks/catalog/products": false,
		"https://user@events.example.com/hooks/catalog/products":         false,
		"https://events.example.com/hooks%2Fcatalog/products":            false,
		"http://events.example.com:443/hooks/catalog/products":           false,
		ours + "?x=1":         false,
		"":                    false,
		"projects/p/topics/t": false,
	} {
		if got := sameURL(ours, other); got != want {
			t.Errorf("sameURL(ours, %q) = %v, want %v", other, got, want)
		}
	}
	if !sameURL("http://pim.example:80", "http://pim.example/") {
		t.Error("the default port of http counts")
	}
}

func FuzzNormalURL(f *testing.F) {
	f.Add("https://Events.example.com:443//a/../b/?q#f")
	f.Add("http://u:p@[::1]:80/%2e%2e/%2F")
	f.Add("::")
	f.Fuzz(func(t *testing.T, text string) {
		once := normalURL(text)
		if twice := normalURL(once); twice != once {
			t.Errorf("%q becomes %q and then %q", text, once, twice)
		}
	})
}
