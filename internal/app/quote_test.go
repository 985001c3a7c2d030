package app

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/unitgen/unitgen/internal/app/apptest"
)

func TestExecLine(t *testing.T) {
	for _, c := range []struct {
		argv []string
		want string
	}{
		{[]string{"/bin/true"}, `/bin/true`},
		{[]string{"/usr/bin/node", "server.js", "--port=3000"}, `/usr/bin/node server.js --port=3000`},
		{[]string{"/opt/my app/run", "a b"}, `"/opt/my app/run" "a b"`},
		{[]string{"/bin/x", ""}, `/bin/x ""`},
		{[]string{"/bin/x", ";", "a;"}, `/bin/x ";" a;`},
		{[]string{"/bin/x", "100%", "$HOME", "${A}", "$$"}, `/bin/x 100%% $$HOME $${A} $$$$`},
		{[]string{"/opt/50%/x"}, `/opt/50%%/x`},
		{[]string{"/opt/a$b/x", "$HOME", "%i"}, `:/opt/a$b/x $HOME %%i`},
		{[]string{"/bin/x", "a\nb\tc\rd\x01\x7f"}, `/bin/x "a\nb\tc\rd\x01\x7f"`},
		{[]string{"/bin/x", `C:\dir`, `\n`}, `/bin/x "C:\\dir" "\\n"`},
		{[]string{"/bin/x", `say "hi"`, `it's`, `"it's"`}, `/bin/x 'say "hi"' "it's" "\"it's\""`},
		{[]string{"/bin/x", "caf\xe9", "café", "日本語"}, `/bin/x "caf\xe9" café 日本語`},
		{[]string{"/bin/x", "\u202egpj.exe", "a\u00a0b", "\ufeff"}, `/bin/x "\u202egpj.exe" "a\u00a0b" "\ufeff"`},
		{[]string{"/bin/x", "\uffff", "\U0001fffe", "\U000f0000"}, `/bin/x "\xef\xbf\xbf" "\xf0\x9f\xbf\xbe" "\U000f0000"`},
		{[]string{"/bin/x", "#", "a#b", "-x", "@x", "[Service]"}, `/bin/x "#" a#b -x @x [Service]`},
	} {
		got, err := ExecLine(c.argv)
		if err != nil || got != c.want {
			t.Errorf("%q: got %s, %v; want %s", c.argv, got, err, c.want)
		}
	}
}

func TestExecLineRefuses(t *testing.T) {
	for _, c := range []struct {
		argv []string
		want string
	}{
		{nil, "the command is missing"},
		{[]string{"node"}, "the program must be an absolute path"},
		{[]string{"/a//b"}, "must be written without"},
		{[]string{"/a/../b"}, "must be written without"},
		{[]string{"/bin/"}, "must be written without"},
		{[]string{`/opt/it's/x`}, "must not contain quotes"},
		{[]string{`/opt/a"/x`}, "must not contain quotes"},
		{[]string{`/opt/a\b`}, "must not contain quotes"},
		{[]string{"/opt/a\tb"}, "must not contain quotes"},
		{[]string{"/opt/a\x7fb"}, "must not contain quotes"},
		{[]string{"/opt/a "}, "must not end in a blank"},
		{[]string{"/" + strings.Repeat("x", 5000)}, "must have at most 4095 bytes"},
		{[]string{"/bin/x", "a\x00b"}, "argument 1 of the command must not contain NUL"},
		{[]string{"/bin/x", strings.Repeat("x", 128<<10)}, "argument 1 of the command must have at most 131071 bytes, got 131072"},
		{slices.Concat([]string{"/bin/x"}, slices.Repeat([]string{"a"}, 300000)), "8 for each argument included"},
		{slices.Concat([]string{"/bin/x"}, slices.Repeat([]string{strings.Repeat("\x01", 100<<10)}, 3)), "but systemd reads at most 1048576"},
	} {
		_, err := ExecLine(c.argv)
		if len(InputErrors(err)) != 1 || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%.60q: got %v, want …%s…", c.argv, err, c.want)
		}
	}
}

func vectors() []apptest.Vector {
	return append(apptest.Vectors(), apptest.Generate(1, 2000)...)
}

func TestExecLineRoundTrip(t *testing.T) {
	for _, v := range vectors() {
		argv := append([]string{"/bin/x"}, v.Args...)
		line, err := ExecLine(argv)
		if err != nil {
			t.Errorf("%s: %v", v.Name, err)
			continue
		}
		checkLine(t, line)
		if back, err := parseExecLine(line); err != nil || !slices.Equal(back, argv) {
			t.Errorf("%s: %.200s came back as %.200q, %v", v.Name, line, back, err)
		}
	}
}

// checkLine says whether PID 1 takes s as one line of a unit file.
func checkLine(t *testing.T, s string) {
	t.Helper()
	if rawLineProblem(s) != "" || endsInBackslash(s) || strings.TrimSpace(s) != s {
		t.Errorf("not one line: %.200q", s)
	}
}

func TestLinesThatExecLineDoesNotWriteAreRefused(t *testing.T) {
	for _, s := range []string{"", "/bin/x %i", "/bin/x $HOME", "/bin/x %%%", `/bin/x "a`, `/bin/x \q`, `/bin/x \x00`, `/bin/x \400`, `/bin/x a\`, `/bin/x \ud800`, `/bin/x \U00110000`, "-/bin/x", `/bin/x \u12`} {
		if got, err := parseExecLine(s); err == nil {
			t.Errorf("%q: got %q, want an error", s, got)
		}
	}
}

func TestSplitWords(t *testing.T) {
	for s, want := range map[string][]string{
		"":                           nil,
		" \t ":                       nil,
		" a  b\tc ":                  {"a", "b", "c"},
		`a"b c"d 'e "f"'`:            {"ab cd", `e "f"`},
		`"" ''`:                      {"", ""},
		`\x41\101\u00e9\U0001f680\s`: {"AAé🚀 "},
		`"\a\b\f\n\r\t\v\\\"\'"`:     {"\a\b\f\n\r\t\v\\\"'"},
	} {
		if got, err := SplitWords(s); err != nil || !slices.Equal(got, want) {
			t.Errorf("%q: got %q, %v; want %q", s, got, err, want)
		}
	}
}

func TestQuoteAssignment(t *testing.T) {
	for want, a := range map[string]Assignment{
		`A=b`:               {"A", "b"},
		`A=`:                {"A", ""},
		`"A=b c"`:           {"A", "b c"},
		`A=100%%$HOME`:      {"A", "100%$HOME"},
		`"A=line\nanother"`: {"A", "line\nanother"},
		`'A={"b":1}'`:       {"A", `{"b":1}`},
	} {
		if got := QuoteAssignment(a); got != want {
			t.Errorf("%q: got %s, want %s", a, got, want)
		}
	}
	for _, value := range append(apptest.Values(), apptest.GenerateValues(1, 2000)...) {
		checkLine(t, QuoteAssignment(Assignment{"A", value}))
	}
}

func TestRawPaths(t *testing.T) {
	for _, c := range []struct{ path, raw, pattern string }{
		{"/srv/app", "/srv/app", "/srv/app"},
		{"/srv/100% a", "/srv/100%% a", "/srv/100%% a"},
		{"/srv/a ", "/srv/a /", "/srv/a /"},
		{`/srv/a\`, `/srv/a\/`, `/srv/a\\/`},
		{"/srv/*?[x]", "/srv/*?[x]", `/srv/\*\?\[x]`},
	} {
		if got := RawPath(c.path); got != c.raw {
			t.Errorf("RawPath(%q) = %q, want %q", c.path, got, c.raw)
		}
		if got := RawPattern(c.path); got != c.pattern {
			t.Errorf("RawPattern(%q) = %q, want %q", c.path, got, c.pattern)
		}
	}
}

// What is quoted parses back, as one word among others and on one line.
func FuzzQuoteWord(f *testing.F) {
	for _, v := range apptest.Vectors() {
		for _, arg := range v.Args {
			if len(arg) < 1000 {
				f.Add(arg)
			}
		}
	}
	f.Fuzz(func(t *testing.T, s string) {
		if strings.IndexByte(s, 0) >= 0 {
			return
		}
		quoted := QuoteWord(s)
		checkLine(t, quoted)
		words, err := SplitWords("x " + quoted + " y")
		if err != nil || len(words) != 3 || words[1] != s {
			t.Errorf("%q: %s came back as %q, %v", s, quoted, words, err)
		}
	})
}

// Whatever SplitWords accepts has a canonical form that means the same.
func FuzzSplitWords(f *testing.F) {
	for _, s := range []string{`a "b c" 'd'`, `\x41\s`, `"\u00e9`, `a\`, `;`} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		words, err := SplitWords(s)
		if err != nil {
			return
		}
		var quoted []string
		for _, word := range words {
			if strings.IndexByte(word, 0) >= 0 && strings.IndexByte(s, 0) < 0 {
				t.Errorf("%q gave a NUL", s)
			}
			quoted = append(quoted, QuoteWord(word))
		}
		if strings.IndexByte(s, 0) >= 0 {
			return
		}
		if back, err := SplitWords(strings.Join(quoted, " ")); err != nil || !slices.Equal(back, words) {
			t.Errorf("%q: words %q came back as %q, %v", s, words, back, err)
		}
	})
}

func FuzzExecLineParsesBack(f *testing.F) {
	for _, s := range []string{"/bin/x a", ":/bin/$x $a", `"/a b" %% $$ ";"`} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		argv, err := parseExecLine(s)
		if err != nil {
			return
		}
		line, err := ExecLine(argv)
		if err != nil {
			t.Fatalf("%q: %q: %v", s, argv, err)
		}
		if back, err := parseExecLine(line); err != nil || !slices.Equal(back, argv) {
			t.Errorf("%q: %q came back as %q, %v", s, argv, back, err)
		}
	})
}

func TestVectorsAreFit(t *testing.T) {
	names := map[string]bool{}
	for _, v := range vectors() {
		if names[v.Name] {
			t.Errorf("two vectors are named %s", v.Name)
		}
		names[v.Name] = true
		for _, arg := range v.Args {
			if strings.IndexByte(arg, 0) >= 0 {
				t.Errorf("%s holds a NUL", v.Name)
			}
		}
	}
	again := append(apptest.Vectors(), apptest.Generate(1, 2000)...)
	for i, v := range vectors() {
		if !slices.Equal(v.Args, again[i].Args) {
			t.Errorf("%s is not the same twice", v.Name)
		}
	}
	for _, value := range append(apptest.Values(), apptest.GenerateValues(1, 2000)...) {
		if !isText(value) {
			t.Errorf("environment value %q is not text", value)
		}
	}
}

// parseExecLine takes apart what ExecLine wrote. It refuses what ExecLine would not write:
// specifiers and variables that PID 1 would expand, several commands, and prefixes other than ":".
func parseExecLine(s string) ([]string, error) {
	literal := strings.HasPrefix(s, ":")
	words, err := SplitWords(strings.TrimPrefix(s, ":"))
	if err != nil {
		return nil, err
	}
	for i, word := range words {
		if word, err = collapse(word, '%'); err == nil && !literal {
			word, err = collapse(word, '$')
		}
		if err != nil {
			return nil, err
		}
		words[i] = word
	}
	return words, checkCommand(words)
}

// collapse undoes the doubling of c.
func collapse(s string, c byte) (string, error) {
	pair := string([]byte{c, c})
	rest := strings.ReplaceAll(s, pair, "")
	if strings.IndexByte(rest, c) >= 0 {
		return "", fmt.Errorf("parse command: %q would be expanded", shorten(s))
	}
	return strings.ReplaceAll(s, pair, string(c)), nil
}
