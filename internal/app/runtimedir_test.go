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

// What root keeps below /run/unitgen must not become a program's.
func TestRuntimeDirectoryOfUnitgenIsRefused(t *testing.T) {
	for value, want := range map[string]bool{
		"web": false, "web/unitgen": false, "unitgen-web": false, "": false, "a b/c": false,
		"unitgen": true, "unitgen/web": true, "a unitgen/web": true, "./unitgen//web": true, `"unitgen/web"`: true, "a:unitgen/web": true,
	} {
		a := App{Name: "web", Command: []string{"/bin/true"}, Properties: []Property{{"RuntimeDirectory", value}}}
		if err := a.Properties[0].check(a); (err != nil) != want {
			t.Errorf("%q: %v, want an error: %v", value, err, want)
		}
	}
}

// Lists of one setting add up, and an empty value takes them back.
func TestTakesRuntimeDirectory(t *testing.T) {
	for _, test := range []struct {
		values []string
		want   bool
	}{
		{nil, false},
		{[]string{"web"}, false},
		{[]string{"web", "unitgen/web"}, true},
		{[]string{"unitgen/web", "web"}, true},
		{[]string{"unitgen/web", ""}, false},
		{[]string{"unitgen/web", "", "web"}, false},
	} {
		settings := []Property{{"RuntimeDirectoryMode", "unitgen"}}
		for _, value := range test.values {
			settings = append(settings, Property{"RuntimeDirectory", value})
		}
		if got := TakesRuntimeDirectory(settings); got != test.want {
			t.Errorf("%q: %v, want %v", test.values, got, test.want)
		}
	}
}
