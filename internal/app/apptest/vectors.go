// Package apptest holds argument vectors and environment values that are hard to write into unit
// files: the cases of the quoting tests, shared with the tests that start them under a real PID 1.
// Everything here is deterministic.
package apptest

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"unicode/utf8"
)

// Vector is the arguments of one command after its program; none holds a NUL.
type Vector struct {
	Name string // of letters, digits and "-": fit for a file name
	Args []string
}

// Text reports whether every argument is text to systemd, which then can show it over D-Bus: valid
// UTF-8 without non-characters (U+FDD0 to U+FDEF, and the last two of each plane).
func (v Vector) Text() bool {
	for _, arg := range v.Args {
		if !text(arg) {
			return false
		}
	}
	return true
}

func text(s string) bool {
	return utf8.ValidString(s) && !strings.ContainsFunc(s, func(r rune) bool {
		return r >= 0xfdd0 && r <= 0xfdef || r&0xfffe == 0xfffe
	})
}

// Vectors returns the cases made by hand, one for each rule of systemd.service(5) and each trap
// found so far.
func Vectors() []Vector {
	vectors := []Vector{
		{"none", nil},
		{"empty", []string{""}},
		{"empties", []string{"", "", ""}},
		{"plain", []string{"server.js", "--port=3000", "-v"}},
		{"spaces", []string{" ", "  a  ", "a b", "\t", " \t "}},
		{"quotes", []string{`"`, `'`, `"'`, `"a"`, `'a'`, `a"b`, `a'b`, `it's "so"`, `""`, `''`, `"a`, `a"`}},
		{"json", []string{`{"a":1,"b":["c d",null]}`, `{"it's":"$HOME %h"}`}},
		{"backslashes", []string{`\`, `\\`, `\\\`, `a\`, `\a`, `\n`, `\x41`, `\101`, `\u0041`, `\s`, `C:\new\table`, `\"`, `\'`, `\ `}},
		{"specifiers", []string{"%", "%%", "%%%", "%i", "%n", "%h/x", "100%", "%Y-%m-%d", "%", "a%"}},
		{"variables", []string{"$", "$$", "$$$", "$HOME", "${HOME}", "$INSTANCE", "${INSTANCE}x", "a$HOME", "$1", "${", "${}", "$HOME$HOME", "x${HOME", "${HOME:-x}", "${HOME:+y}"}},
		{"semicolons", []string{";", ";;", "a;", ";a", `\;`, " ; ", "a", ";", "b"}},
		{"shell", []string{"&&", "||", "|", ">", "<", "2>&1", "`id`", "$(id)", "*", "?", "[a-z]", "~", "!", "#", "# x", "a#b", "&", "(", ")", "{}"}},
		{"prefixes", []string{"-", "@", ":", "+", "!", "!!", "|", "-x", "@x", ":x", "+x", "!x", "|x", "-@:+!"}},
		{"newlines", []string{"\n", "a\nb", "\n\n", "a\n", "\na", "\r", "\r\n", "a\rb", "a\\\nb", "[Service]\nExecStart=/bin/false", "x\n[Install]"}},
		{"comments", []string{"#", "#x", ";x", "\n#x", "\n;x"}},
		{"sections", []string{"[Service]", "ExecStart=/bin/false", "=", "a=b", "=a", "[", "]"}},
		{"unicode", []string{"é", "日本語", "🚀", "a\u0301", "\u00a0", "\u2003", "\u200b", "\u202e", "\ufeff", "\ufffd", "\U0010ffff", "\u0085", "\u2028", "\ue000", "\ufdd0", "\uffff"}},
		{"dashes", []string{"--", "--", "-", "---", "--a=", "--a= b"}},
		{"many", strings.Split(strings.Repeat("a b%$;\"'\\ ", 300), " ")},
		{"long", []string{strings.Repeat("x", 100<<10)}},
		{"long-escaped", []string{strings.Repeat("%$\"'\\ \n", 10<<10)}},
		{"longest", []string{strings.Repeat("y", 128<<10-1)}},
	}
	for b := 1; b < 256; b++ {
		vectors = append(vectors, Vector{fmt.Sprintf("byte-%02x", b), []string{string([]byte{byte(b)}), string([]byte{'a', byte(b), 'b'})}})
	}
	return append(vectors,
		Vector{"not-utf8", []string{"\xff\xfe", "a\xc3", "\xc3\x28", "\xed\xa0\x80", "\xf4\x90\x80\x80", "\xc0\x80", "é\xe9"}},
		Vector{"every-byte", []string{everyByte()}},
	)
}

func everyByte() string {
	var b []byte
	for c := 1; c < 256; c++ {
		b = append(b, byte(c))
	}
	return string(b)
}

// Generate returns n vectors of pieces that mean something to systemd, to a shell or to UTF-8, put
// together at random; the same seed gives the same vectors. About one in eight is not valid UTF-8.
func Generate(seed uint64, n int) []Vector {
	random := rand.New(rand.NewPCG(seed, 0))
	vectors := make([]Vector, n)
	for i := range vectors {
		args := make([]string, random.IntN(6))
		next := word
		if random.IntN(8) == 0 {
			next = bytes
		}
		for j := range args {
			args[j] = next(random)
		}
		vectors[i] = Vector{fmt.Sprintf("random-%d-%d", seed, i), args}
	}
	return vectors
}

// word is valid UTF-8.
func word(random *rand.Rand) string {
	pieces := pieces()
	var b strings.Builder
	for range random.IntN(9) {
		if random.IntN(4) == 0 {
			b.WriteRune(character(random))
		} else {
			b.WriteString(pieces[random.IntN(len(pieces))])
		}
	}
	return b.String()
}

// bytes is a word with other bytes thrown in.
func bytes(random *rand.Rand) string {
	b := []byte(word(random))
	for range random.IntN(4) {
		at := random.IntN(len(b) + 1)
		b = slices.Insert(b, at, byte(1+random.IntN(255)))
	}
	return string(b)
}

// character is any Unicode character but NUL, each length in UTF-8 equally often.
func character(random *rand.Rand) rune {
	limits := []int{1, 0x80, 0x800, 0x10000, utf8.MaxRune + 1}
	for {
		k := random.IntN(len(limits) - 1)
		if r := rune(limits[k] + random.IntN(limits[k+1]-limits[k])); utf8.ValidRune(r) {
			return r
		}
	}
}

func pieces() []string {
	return []string{
		" ", "\t", "\n", "\r", `"`, "'", `\`, "%", "$", "{", "}", ";", "#", "=", "-", "@", ":", "+", "!", "|", "[", "]",
		"a", "b", "x41", "n", "s", "u0041", "101", "HOME", "INSTANCE", "%i", "%%", "$$", "${HOME}", `\;`, `\x`, `\u`, "é", "日", "🚀",
	}
}

// Values returns values of environment variables that PID 1 can pass on, so all of them are text.
func Values() []string {
	var values []string
	for _, v := range Vectors() {
		for _, arg := range v.Args {
			if text(arg) {
				values = append(values, arg)
			}
		}
	}
	return values
}

// GenerateValues returns n random values as Values does.
func GenerateValues(seed uint64, n int) []string {
	random := rand.New(rand.NewPCG(seed, 1))
	values := make([]string, 0, n)
	for len(values) < n {
		if value := word(random); text(value) {
			values = append(values, value)
		}
	}
	return values
}
