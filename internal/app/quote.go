package app

import (
	"fmt"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"
)

// MaxLine is the longest logical line that PID 1 reads, in bytes (LONG_LINE_MAX in
// src/basic/fileio.h); the unit file is refused as a whole above it.
const MaxLine = 1 << 20

// QuoteWord writes s so that systemd reads it as one word (extract_first_word() with
// EXTRACT_UNQUOTE and EXTRACT_CUNESCAPE, src/basic/extract-word.c). Words that need no quotes stay
// bare. Bytes that cannot be in a unit file, such as a newline or a byte that is not UTF-8, become
// C escapes. A NUL is written too, but systemd refuses it. Specifiers and variables stay as they
// are.
func QuoteWord(s string) string {
	if !needsQuotes(s) {
		return s
	}
	quote := byte('"')
	if strings.Contains(s, `"`) && !strings.Contains(s, "'") {
		quote = '\'' // keeps JSON readable; both kinds know the same escapes
	}
	var b strings.Builder
	b.Grow(len(s) + 2)
	b.WriteByte(quote)
	for i := 0; i < len(s); {
		r, size := utf8.DecodeRuneInString(s[i:])
		switch {
		case r == utf8.RuneError && size == 1 || nonCharacter(r):
			// As bytes, also for a non-character: systemd refuses those in \U, and in the text of a
			// line.
			for _, c := range []byte(s[i : i+size]) {
				fmt.Fprintf(&b, `\x%02x`, c)
			}
		case r == rune(quote) || r == '\\':
			b.WriteByte('\\')
			b.WriteRune(r)
		case plain(r):
			b.WriteString(s[i : i+size])
		default:
			b.WriteString(escape(r))
		}
		i += size
	}
	b.WriteByte(quote)
	return b.String()
}

// needsQuotes also holds for ";", which alone separates commands, and for "#", which at the start
// of a continued line would be a comment.
func needsQuotes(s string) bool {
	if s == "" || s == ";" || s[0] == '#' {
		return true
	}
	return strings.ContainsFunc(s, func(r rune) bool {
		return r == utf8.RuneError || !plain(r) || r == ' ' || r == '"' || r == '\'' || r == '\\'
	})
}

// plain excludes characters that a reader or an editor could misread, such as bidirectional
// controls, zero width characters, and blanks other than the space.
func plain(r rune) bool { return r == ' ' || unicode.IsGraphic(r) && !unicode.IsSpace(r) }

// nonCharacter reports whether r is one of the 66 code points that systemd does not take as text
// though they are valid UTF-8 (unichar_is_valid() in src/basic/utf8.c).
func nonCharacter(r rune) bool { return r >= 0xfdd0 && r <= 0xfdef || r&0xfffe == 0xfffe }

// isText reports whether systemd accepts s as UTF-8. systemd ignores a line of a unit file, and
// drops an environment assignment, that is not UTF-8.
func isText(s string) bool { return utf8.ValidString(s) && !strings.ContainsFunc(s, nonCharacter) }

func escape(r rune) string {
	switch r {
	case '\n':
		return `\n`
	case '\t':
		return `\t`
	case '\r':
		return `\r`
	}
	switch {
	case r < 0x80:
		return fmt.Sprintf(`\x%02x`, r)
	case r < 0x10000:
		return fmt.Sprintf(`\u%04x`, r)
	}
	return fmt.Sprintf(`\U%08x`, r)
}

// SplitWords takes apart what QuoteWord made, joined by blanks. It reads systemd's syntax strictly:
// unknown escapes and unbalanced quotes are errors, where PID 1 would warn and guess.
func SplitWords(s string) ([]string, error) {
	var words []string
	for rest := trimBlanks(s); rest != ""; rest = trimBlanks(rest) {
		word, tail, err := firstWord(rest)
		if err != nil {
			return nil, err
		}
		words = append(words, word)
		rest = tail
	}
	return words, nil
}

// trimBlanks cuts systemd's WHITESPACE from the front.
func trimBlanks(s string) string { return strings.TrimLeft(s, " \t\n\r") }

func firstWord(s string) (word, rest string, err error) {
	var b strings.Builder
	var quote byte
	for i := 0; i < len(s); {
		c := s[i]
		switch {
		case c == '\\':
			n, err := unescape(&b, s[i+1:])
			if err != nil {
				return "", "", err
			}
			i += n
		case quote != 0 && c == quote:
			quote = 0
		case quote == 0 && (c == '"' || c == '\''):
			quote = c
		case quote == 0 && strings.IndexByte(" \t\n\r", c) >= 0:
			return b.String(), s[i:], nil
		default:
			b.WriteByte(c)
		}
		i++
	}
	if quote != 0 {
		return "", "", fmt.Errorf("split %q: unbalanced quotes", shorten(s))
	}
	return b.String(), "", nil
}

// unescape reads what follows a backslash, as cunescape_one() of src/basic/escape.c does, and
// returns how many bytes that was.
func unescape(b *strings.Builder, s string) (int, error) {
	if s == "" {
		return 0, fmt.Errorf("split words: backslash at the end")
	}
	if i := strings.IndexByte(`abfnrtvs"'\`, s[0]); i >= 0 {
		b.WriteByte("\a\b\f\n\r\t\v \"'\\"[i])
		return 1, nil
	}
	digits, base := 0, 16
	switch c := s[0]; {
	case c == 'x':
		digits = 2
	case c == 'u':
		digits = 4
	case c == 'U':
		digits = 8
	case c >= '0' && c <= '3':
		digits, base = 2, 8
	}
	if digits == 0 || len(s) <= digits {
		return 0, fmt.Errorf("split words: unknown escape %q", `\`+shorten(s))
	}
	text := s[1 : 1+digits]
	if base == 8 {
		text = s[:3]
	}
	value, err := strconv.ParseUint(text, base, 32)
	switch {
	case err != nil || value == 0:
		return 0, fmt.Errorf("split words: bad escape %q", `\`+s[:1+digits])
	case s[0] == 'u' || s[0] == 'U':
		if value > unicode.MaxRune || !utf8.ValidRune(rune(value)) || nonCharacter(rune(value)) {
			return 0, fmt.Errorf("split words: %q is no character", `\`+s[:1+digits])
		}
		b.WriteRune(rune(value))
	default:
		b.WriteByte(byte(value))
	}
	return 1 + digits, nil
}

// shorten keeps messages about long input to one line.
func shorten(s string) string {
	if len(s) > 40 {
		return s[:40] + "…"
	}
	return s
}
