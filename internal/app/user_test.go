package app

import (
	"regexp"
	"strings"
	"testing"
)

// Whatever an app is called, its user is one that systemd makes, and no other app's.
func TestInstanceUser(t *testing.T) {
	for _, tc := range []struct {
		name, shared, own string // own is that of instance 512
	}{
		{"web", "ug-web", "ug512-web"},
		{"root", "ug-root", "ug512-root"},
		{"Web_1-x", "ug-Web_1-x", "ug512-Web_1-x"},
		{strings.Repeat("a", 25), "ug-" + strings.Repeat("a", 25), "ug512-" + strings.Repeat("a", 25)},
		{strings.Repeat("a", 26), "ug-" + strings.Repeat("a", 26), "ug512_aaaaaaaaaaaa_9976d549a251"},
		{strings.Repeat("a", 28), "ug-" + strings.Repeat("a", 28), "ug512_aaaaaaaaaaaa_9c547cb8115a"},
		{"web.example.com", "ug_web-example-com_a273ea6b8901", "ug512_web-example-_a273ea6b8901"},
		{"web:example-com", "ug_web-example-com_db7aa79e513e", "ug512_web-example-_db7aa79e513e"},
	} {
		shared := App{Name: Name(tc.name)}
		own := App{Name: Name(tc.name), UserPerInstance: true}
		got := []string{shared.InstanceUser(), shared.DynamicUsers([]int{1, 512})[0], own.DynamicUsers([]int{1, 512})[1]}
		if got[0] != tc.shared || got[1] != tc.shared || got[2] != tc.own {
			t.Errorf("%s: got %q, want %s and %s", tc.name, got, tc.shared, tc.own)
		}
		if pattern := strings.Replace(got[2], "512", "%i", 1); own.InstanceUser() != pattern {
			t.Errorf("%s: User=%s, want %s", tc.name, own.InstanceUser(), pattern)
		}
		for _, user := range got {
			if !regexp.MustCompile(`^[a-zA-Z_][a-zA-Z0-9_-]{0,30}$`).MatchString(user) {
				t.Errorf("%s: %q is no name of a user for systemd", tc.name, user)
			}
		}
	}
	if users := (App{Name: "web", User: "alice"}).DynamicUsers([]int{1}); users != nil {
		t.Errorf("with --user=: %q", users)
	}
	if user := (App{Name: "web", UserUnits: true}).InstanceUser(); user != "" {
		t.Errorf("of a user's own units: %q", user)
	}
}
