package app

import "testing"

func TestSharesRuntimeDirectory(t *testing.T) {
	for _, test := range []struct {
		name     string
		settings []Property
		want     bool
	}{
		{"none", []Property{{"MemoryMax", "1G"}}, false},
		{"one for all", []Property{{"RuntimeDirectory", "web"}}, true},
		{"one for each", []Property{{"RuntimeDirectory", "web/%i"}}, false},
		{"one for each, by the unit's name", []Property{{"RuntimeDirectory", "%N"}}, false},
		{"one of two for all", []Property{{"RuntimeDirectory", "web-%i web"}}, true},
		{"a prefix is no instance", []Property{{"RuntimeDirectory", "%p"}}, true},
		{"a percent sign is no specifier", []Property{{"RuntimeDirectory", "web%%i"}}, true},
		{"taken back", []Property{{"RuntimeDirectory", "web"}, {"RuntimeDirectory", ""}}, false},
		{"added to", []Property{{"RuntimeDirectory", "web"}, {"RuntimeDirectory", "%i"}}, true},
		{"the user has decided", []Property{{"RuntimeDirectory", "web"}, {"RuntimeDirectoryPreserve", "no"}}, false},
	} {
		if got := SharesRuntimeDirectory(test.settings); got != test.want {
			t.Errorf("%s: %v, want %v", test.name, got, test.want)
		}
	}
}
