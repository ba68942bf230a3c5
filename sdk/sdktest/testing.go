package sdktest

import "testing"

// Run runs all cases as subtests, one after the other, and skips those that are
// left out.
func Run(t *testing.T, s Subject) {
	t.Helper()
	for _, c := range Cases() {
		t.Run(c.Name, func(t *testing.T) {
			switch r := c.Run(t.Context(), s); r.Status {
			case Failed:
				t.Errorf("%s: %s", c.About, r.Detail)
			case LeftOut:
				t.Skip(r.Detail)
			default:
				if r.Detail != "" {
					t.Log(r.Detail)
				}
			}
		})
	}
}
