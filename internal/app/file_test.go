package app

import (
	"slices"
	"strconv"
	"strings"
	"testing"
)

// Keys and options are names of one setting, and each setting but Instances is in section
// [X-Unitgen].
func TestTable(t *testing.T) {
	seen := make(map[string]bool)
	for _, s := range Table() {
		for _, name := range []string{s.Key, "--" + s.Option} {
			if seen[name] && name != "--" {
				t.Errorf("%s names two settings", name)
			}
			seen[name] = true
		}
		if (s.words == nil) != (s.Key == "Instances") || s.fits != nil && s.unfit == "" {
			t.Errorf("the row of %s is incomplete", s.Key)
		}
	}
}

// What Settings writes is a file too.
func TestParseFileReadsSettings(t *testing.T) {
	settings, err := ParseFile("shop.unitgen", Settings(full()))
	if err != nil {
		t.Fatal(err)
	}
	values := make(map[string][]string)
	for _, s := range settings {
		values[s.Key] = append(values[s.Key], s.Given...)
	}
	for key, want := range map[string][]string{
		"Command": full().Command, "Listen": {"3000", "127.0.0.1:3001", "[fe80::1%eth0]:80"},
		"Environment": {"A=", "B=x=y z", "C=100%\n\"q\""}, "ReloadAt": {"Mon 04:00"}, "DrainTimeoutSec": {"1min 30s"},
		"WorkingDirectory": {"/srv/shop "}, "Pin": {"yes"},
	} {
		if !slices.Equal(values[key], want) {
			t.Errorf("%s: got %q, want %q", key, values[key], want)
		}
	}
}

// Lines are those of PID 1: comments may stand in the middle of a continued line, and an empty line
// ends it.
func TestParseFileLines(t *testing.T) {
	text := "\ufeff# c\r\n\n[X-Unitgen]\nCommand=/bin/x \\\n; c\n  a\\\n\nListen = 3000\r\nEnvironment=A=1 'B=2 3'\nReloadAt=Mon..Fri  04:00"
	settings, err := ParseFile("f", text)
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, s := range settings {
		got = append(got, strconv.Itoa(s.Number)+" "+s.Key+" "+strings.Join(s.Given, "|"))
	}
	want := []string{"4 Command /bin/x|a", "8 Listen 3000", "9 Environment A=1|B=2 3", "10 ReloadAt Mon..Fri 04:00"}
	if !slices.Equal(got, want) {
		t.Errorf("got\n%q\nwant\n%q", got, want)
	}
}

func TestParseFileRefuses(t *testing.T) {
	for text, want := range map[string]string{
		"Comand=/bin/x":                    `f:1: unknown key "Comand"; did you mean Command=?`,
		"ExecStart=/bin/x":                 `f:1: unknown key "ExecStart"; did you mean Command=?`,
		"drain-timeout=3":                  `f:1: unknown key "drain-timeout"; did you mean DrainTimeoutSec=?`,
		"\x1b[2J=3":                        `f:1: unknown key "\x1b[2J"`,
		"MemoryHigh=1G":                    `f:1: unknown key "MemoryHigh"; a setting of section [Service] is written Property=MemoryHigh=VALUE`,
		strings.Repeat("x", 100000) + "=1": `f:1: unknown key "` + strings.Repeat("x", 40) + `…"`,
		"[Service]":                        `f:1: section "[Service]" is not possible here, only [X-Unitgen]`,
		"Listen=3\n[X-Unitgen]":            "f:2: [X-Unitgen] must appear once, before all keys",
		"[X-Unitgen]\n[X-Unitgen]":         "f:2: [X-Unitgen] must appear once, before all keys",
		"Version=2":                        `f:1: Version=: "2" is a format`,
		"=x":                               `f:1: unknown key ""`,
		"# c\n\nInstances=0":               `f:3: Instances= must be a number from 1 to 512 or max, got "0"`,
		"Instances=+1":                     `f:1: Instances= must be`,
		"Instances=2\nInstances=2":         "f:2: Instances is given twice",
		"Listen=99999":                     "f:1: Listen= must be PORT",
		"Property=A b":                     "f:1: Property= takes one word, got 2; quotes make one of several",
		"Listen=3000 \\\n 3001":            "f:1: Listen= takes one word, got 2",
		"\x00":                             "f: not a text file: it contains NUL",
		"Command=\xff":                     "f: not a text file: it is not valid UTF-8",
		strings.Repeat("#", MaxFile+1):     "f: it must have at most 1048576 bytes",
	} {
		_, err := ParseFile("f", text)
		if err == nil || !strings.HasPrefix(err.Error(), want) {
			t.Errorf("%.40q: got %v, want %s…", text, err, want)
		}
		for _, e := range InputErrors(err) {
			if strings.ContainsAny(e.Msg+e.Hint, "\n\r\x1b") {
				t.Errorf("%.40q: %q is not one clean line", text, e.Msg+e.Hint)
			}
		}
	}
}

// A file that is something else is told of in a few lines, and read in no time.
func TestParseFileGarbage(t *testing.T) {
	for _, text := range []string{strings.Repeat("x\n", MaxFile/2), strings.Repeat("\\\n", MaxFile/2)} {
		_, err := ParseFile("f", text)
		if n := len(InputErrors(err)); n < 1 || n > maxFindings {
			t.Errorf("%.20q…: %d errors", text, n)
		}
	}
}

func TestInKeys(t *testing.T) {
	const text = "--listen= and --pin do not go with --output=DIR, --drain-timeout=5s; -- x --"
	if got, want := InKeys(text), "Listen= and Pin= do not go with --output=DIR, DrainTimeoutSec=5s; -- x --"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

// Hostile files: whatever stands in them, the errors are one line each that cannot talk to a
// terminal, and what is read is what section [X-Unitgen] takes too.
func FuzzParseFile(f *testing.F) {
	f.Add(Settings(full()))
	f.Add("Command=/bin/x \\\n# c\n y\nInstances=max\nListen=3000\n")
	f.Add("[X-Unitgen]\nlisten=\x1b\nProperty=A=\\x20b\nWithin=1\n")
	f.Fuzz(func(t *testing.T, text string) {
		settings, err := ParseFile("f", text)
		for _, e := range InputErrors(err) {
			if strings.ContainsFunc(e.Msg+e.Hint, func(r rune) bool { return r < ' ' }) {
				t.Errorf("%q: error %q, hint %q", text, e.Msg, e.Hint)
			}
		}
		if err != nil {
			return
		}
		var section strings.Builder
		section.WriteString("[X-Unitgen]\n")
		for _, s := range settings {
			if s.Key != "Instances" && s.Key != "Version" {
				section.WriteString(settingLine(*s.Setting, s.Given...))
			}
		}
		back, err := ParseFile("f", section.String())
		if err != nil {
			t.Fatalf("%q\nwritten as %q\n%v", text, section.String(), err)
		}
		for i, s := range slices.DeleteFunc(settings, func(s Line) bool { return s.Key == "Instances" || s.Key == "Version" }) {
			if back[i].Key != s.Key || !slices.Equal(back[i].Given, s.Given) {
				t.Errorf("%q\nread as %q\ncame back as %q", text, s.Given, back[i].Given)
			}
		}
	})
}
