package app

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"
)

// form is what stands behind the "=" of a key.
type form int

const (
	formWord  form = iota // one word
	formWords             // several values
	formText              // a text with blanks
	formTime              // a time span, which may have blanks
	formArgv              // a command line
)

// value is the field of an App that a setting is about, and how it is read and written.
type value struct {
	List bool // may stand several times
	Flag bool // its option may stand without a value, which means yes

	form    form
	choices []string

	read  func(a *App, word string) error                   // a word of section [X-Unitgen]
	take  func(a *App, option string, texts []string) error // the values of the option
	words func(a *App) []string                             // as section [X-Unitgen] has them; none if a does not have it
	judge func(a *App, s *Setting) error                    // whether the value is possible; called if there is one
}

// codec reads and writes the values of one type. What section [X-Unitgen] has is let through unless
// it cannot be understood: a later unitgen may allow more.
type codec[T any] struct {
	form    form
	choices []string
	read    func(word string) (T, error)
	take    func(option, text string) (T, error) // option is "--option="; with an error, a value that gives no cause for others
	write   func(T) string                       // empty if it is not set
	judge   func(s *Setting, v T) error          // may be nil
}

// one is a setting that has one value. An empty one takes it back to its default.
func one[T any](at func(*App) *T, c codec[T]) value {
	return value{
		form: c.form, choices: c.choices,
		read: func(a *App, word string) (err error) {
			*at(a), err = c.read(word)
			return err
		},
		take: func(a *App, option string, texts []string) (err error) {
			var none T
			*at(a) = none
			if text := texts[len(texts)-1]; text != "" {
				*at(a), err = c.take(option, text)
			}
			return err
		},
		words: func(a *App) []string {
			if word := c.write(*at(a)); word != "" {
				return []string{word}
			}
			return nil
		},
		judge: func(a *App, s *Setting) error {
			if c.judge == nil {
				return nil
			}
			return c.judge(s, *at(a))
		},
	}
}

// list is a setting that may stand several times. An empty value takes back those before it.
func list[T any](at func(*App) *[]T, read func(string) (T, error), write func(T) string) value {
	return value{
		List: true,
		read: func(a *App, word string) error {
			v, err := read(word)
			*at(a) = append(*at(a), v)
			return err
		},
		take: func(a *App, _ string, texts []string) error {
			*at(a) = nil
			var found []error
			for _, text := range texts {
				if text == "" {
					*at(a) = nil
					continue
				}
				v, err := read(text)
				if err == nil {
					*at(a) = append(*at(a), v)
				}
				found = append(found, err)
			}
			return errors.Join(found...)
		},
		words: func(a *App) []string {
			var words []string
			for _, v := range *at(a) {
				words = append(words, write(v))
			}
			return words
		},
	}
}

// text is a string that other checks judge.
func text[T ~string](at func(*App) *T) value {
	return one(at, codec[T]{
		read: func(word string) (T, error) {
			word, err := notEmpty(word)
			return T(word), err
		},
		take:  func(_, text string) (T, error) { return T(text), nil },
		write: func(v T) string { return string(v) },
	})
}

// choice is one of the words known. Those behind them are reserved: instead says what to do about
// them.
func choice[T ~string](at func(*App) *T, known []T, instead string, reserved ...T) value {
	all := slices.Concat(known, reserved)
	v := one(at, codec[T]{
		read: func(word string) (T, error) {
			if !slices.Contains(all, T(word)) {
				return "", fmt.Errorf("unknown value %q", word)
			}
			return T(word), nil
		},
		take:  func(_, text string) (T, error) { return T(text), nil },
		write: func(v T) string { return string(v) },
		judge: func(s *Setting, v T) error {
			hint := s.hint
			if hint == "" {
				hint = s.name() + string(known[0])
			}
			switch {
			case slices.Contains(reserved, v):
				return inputErrorf(hint, "%s%s is not available in this version%s", s.name(), v, instead)
			case !slices.Contains(known, v):
				return inputErrorf(hint, "%s must be %s, got %q", s.name(), either(s.choices), v)
			}
			return nil
		},
	})
	for _, k := range known {
		v.choices = append(v.choices, string(k))
	}
	return v
}

// either writes words as alternatives: "a, b or c".
func either(words []string) string {
	last := len(words) - 1
	return strings.Join(words[:last], ", ") + " or " + words[last]
}

func truth(at func(*App) *bool) value {
	v := one(at, codec[bool]{
		choices: []string{"yes", "no"},
		read: func(word string) (bool, error) {
			truth, ok := boolean(word)
			if !ok {
				return false, fmt.Errorf("%q is neither yes nor no", word)
			}
			return truth, nil
		},
		take: func(option, text string) (bool, error) {
			if text != "yes" && text != "no" {
				return false, inputErrorf("", "%s must be yes or no, got %q", option, text)
			}
			return text == "yes", nil
		},
		write: func(v bool) string {
			if v {
				return "yes"
			}
			return ""
		},
	})
	v.Flag = true
	return v
}

// number is a positive number up to most, zero if it is not set. What it counts stands in errors;
// hint is a value to try.
func number(at func(*App) *int, counts string, most int, hint string) value {
	return one(at, codec[int]{
		read: func(word string) (int, error) {
			n, err := strconv.Atoi(word)
			if err != nil || n < 1 {
				err = fmt.Errorf("%q is not %s", word, counts)
			}
			return n, err
		},
		take: func(option, text string) (int, error) {
			n, err := strconv.Atoi(text)
			if err != nil || n < 1 {
				return 1, inputErrorf("", "%s must be a positive number, got %q", option, text)
			}
			return n, nil
		},
		write: writeNumber,
		judge: func(s *Setting, n int) error {
			if n >= 1 && n <= most {
				return nil
			}
			line := ""
			if hint != "" {
				line = s.name() + hint
			}
			return inputErrorf(line, "%s must be between 1 and %d, got %d", s.name(), most, n)
		},
	})
}

func writeNumber(n int) string {
	if n == 0 {
		return ""
	}
	return strconv.Itoa(n)
}

// numbers is a list of them in one word.
func numbers(at func(*App) *[]int, parse func(string) ([]int, error)) value {
	return one(at, codec[[]int]{
		read:  parse,
		take:  func(_, text string) ([]int, error) { return parse(text) },
		write: joinNumbers,
		judge: func(_ *Setting, v []int) error {
			_, err := parse(joinNumbers(v))
			return err
		},
	})
}

func timeSpan(at func(*App) *time.Duration) value {
	return one(at, codec[time.Duration]{
		form: formTime,
		read: func(text string) (time.Duration, error) {
			d, err := ParseTimeSpan(text)
			if err == nil && d == 0 {
				err = errZero
			}
			return d, err
		},
		take: ParseTimeout,
		write: func(d time.Duration) string {
			if d == 0 {
				return ""
			}
			return FormatTimeSpan(d)
		},
		judge: func(s *Setting, d time.Duration) error { return checkTimeout(s.name(), d) },
	})
}

// errZero is a time span of a key that has no meaning there.
var errZero = errors.New("must not be 0")

func size(at func(*App) *Size) value {
	return one(at, codec[Size]{
		read: func(word string) (Size, error) {
			s, err := ParseSize(word)
			if err == nil && s == 0 {
				err = errors.New("it must not be 0")
			}
			return s, err
		},
		take: ParseSizeOption,
		write: func(s Size) string {
			if s == 0 {
				return ""
			}
			return s.String()
		},
		judge: func(s *Setting, size Size) error { return checkSize(s.name(), size) },
	})
}

// formatVersion is Version= of the section, which no App has.
func formatVersion() value {
	return value{
		read: func(_ *App, word string) error {
			if word != settingsVersion {
				return fmt.Errorf("%q is a format that this version of unitgen does not know", word)
			}
			return nil
		},
		words: func(*App) []string { return []string{settingsVersion} },
	}
}

func systemdVersion(at func(*App) *int) value {
	parse := func(word string) (int, bool) {
		n, err := strconv.Atoi(word)
		if err != nil || n < 1 {
			return 0, false
		}
		return n, true
	}
	return one(at, codec[int]{
		read: func(word string) (int, error) {
			n, ok := parse(word)
			if !ok {
				return 0, fmt.Errorf("%q is not the number of a version", word)
			}
			return n, nil
		},
		take: func(option, text string) (int, error) {
			n, ok := parse(text)
			if !ok {
				return 0, inputErrorf("", "%s must be the number of a version, got %q", option, text)
			}
			return n, nil
		},
		write: writeNumber,
		judge: func(s *Setting, n int) error {
			if n < MinSystemdVersion {
				return inputErrorf("", "%s must be at least %d, got %d", s.name(), MinSystemdVersion, n)
			}
			return nil
		},
	})
}

func notEmpty(word string) (string, error) {
	if word == "" {
		return "", errors.New("the value is empty")
	}
	return word, nil
}

func literal(word string) string { return word }

// as is v in another form.
func as(f form, v value) value {
	v.form = f
	return v
}

// address is one address of an option, zero if it is not set.
func address(option string, at func(*App) *Listen) value {
	return one(at, codec[Listen]{
		read: ParseListen,
		take: func(_, text string) (Listen, error) { return parseAddress(option, text) },
		write: func(l Listen) string {
			if l == (Listen{}) {
				return ""
			}
			return l.String()
		},
	})
}
