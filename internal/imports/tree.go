package imports

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"regexp"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"
)

// value is a value of a JSON or YAML file.
type value struct {
	kind   kind
	line   int    // where it begins; 0 where nothing has lines
	text   string // of a scalar, as JavaScript's String() would have it
	items  []value
	fields []field
}

type kind int

const (
	null kind = iota
	text
	number
	truth
	list
	object
)

func (k kind) String() string {
	return [...]string{"null", "a text", "a number", "true or false", "a list", "an object"}[k]
}

// field is one key of an object.
type field struct {
	key  string
	line int
	value
}

// The limits of a tree. By aliases, a short file of YAML can make a large tree.
const (
	maxValues = 100_000
	maxDepth  = 100
)

var errTooMuch = fmt.Errorf("it has more than %d values, or more than %d within each other", maxValues, maxDepth)

// lineError says what is wrong at a line.
type lineError struct {
	line int
	msg  string
}

func (e *lineError) Error() string { return e.msg }

// get returns the last field of that name. The last one counts.
func (v value) get(key string) (field, bool) {
	for i := len(v.fields) - 1; i >= 0; i-- {
		if v.fields[i].key == key {
			return v.fields[i], true
		}
	}
	return field{}, false
}

// parseJSON reads strict JSON. With lines set it counts lines from 1; else there are none.
func parseJSON(data []byte, lines bool) (value, error) {
	p := &jsonParser{data: data, lines: lines, dec: json.NewDecoder(bytes.NewReader(data))}
	p.dec.UseNumber()
	v, err := p.value(0)
	if err == nil {
		if _, more := p.dec.Token(); more != io.EOF {
			err = errors.New("something follows the end of the value")
		}
	}
	if err != nil && !errors.Is(err, errTooMuch) {
		if errors.Is(err, io.EOF) {
			err = io.ErrUnexpectedEOF
		}
		err = &lineError{p.line(), err.Error()}
	}
	return v, err
}

type jsonParser struct {
	data   []byte
	dec    *json.Decoder
	lines  bool
	values int
	at     int64 // up to where lines are counted
	count  int
}

func (p *jsonParser) line() int {
	if !p.lines {
		return 0
	}
	at := p.dec.InputOffset()
	p.count += bytes.Count(p.data[p.at:at], []byte("\n"))
	p.at = at
	return 1 + p.count
}

func (p *jsonParser) value(depth int) (value, error) {
	token, err := p.dec.Token()
	if err != nil {
		return value{}, err
	}
	if p.values++; p.values > maxValues || depth > maxDepth {
		return value{}, errTooMuch
	}
	v := value{line: p.line()}
	switch t := token.(type) {
	case string:
		v.kind, v.text = text, t
	case json.Number:
		v.kind, v.text = number, t.String()
	case bool:
		v.kind, v.text = truth, strconv.FormatBool(t)
	case json.Delim:
		v.kind = map[json.Delim]kind{'[': list, '{': object}[t]
		for p.dec.More() {
			f := field{}
			if v.kind == object {
				key, err := p.dec.Token()
				if err != nil {
					return v, err
				}
				f.key, f.line = key.(string), p.line()
			}
			if f.value, err = p.value(depth + 1); err != nil {
				return v, err
			}
			if v.kind == list {
				v.items = append(v.items, f.value)
				continue
			}
			v.fields = append(v.fields, f)
		}
		_, err = p.dec.Token()
	}
	return v, err
}

// parseRelaxed reads JSON as PM2 does, which evaluates it as JavaScript: with comments, keys
// without quotes, texts in single quotes, and commas before a closing bracket. Without the comments
// and tabs such a text is YAML.
func parseRelaxed(data string) (value, error) { return parseYAML(withoutComments(data)) }

// withoutComments replaces JavaScript's comments and tabs by blanks. YAML allows no tabs between
// tokens.
func withoutComments(s string) string {
	out := []byte(s)
	blank := func(from, to int) {
		for i := from; i < to; i++ {
			if out[i] != '\n' {
				out[i] = ' '
			}
		}
	}
	for i := 0; i < len(s); i++ {
		switch {
		case s[i] == '"' || s[i] == '\'':
			quote := s[i]
			for i++; i < len(s) && s[i] != quote; i++ {
				if s[i] == '\\' {
					i++
				}
			}
		case s[i] == '\t':
			out[i] = ' '
		case strings.HasPrefix(s[i:], "//"):
			end := len(s)
			if n := strings.IndexByte(s[i:], '\n'); n >= 0 {
				end = i + n
			}
			blank(i, end)
			i = end - 1
		case strings.HasPrefix(s[i:], "/*"):
			end := len(s)
			if n := strings.Index(s[i+2:], "*/"); n >= 0 {
				end = i + 2 + n + 2
			}
			blank(i, end)
			i = end - 1
		}
	}
	return string(out)
}

// parseYAML reads one document.
func parseYAML(data string) (value, error) {
	dec := yaml.NewDecoder(strings.NewReader(data))
	var doc, more yaml.Node
	if err := dec.Decode(&doc); errors.Is(err, io.EOF) {
		return value{}, nil
	} else if err != nil {
		return value{}, yamlError(err)
	}
	if err := dec.Decode(&more); err == nil {
		return value{}, &lineError{more.Line, "a second document is not possible here"}
	} else if !errors.Is(err, io.EOF) {
		return value{}, yamlError(err)
	}
	p := yamlReader{}
	return p.value(&doc, 0)
}

// yamlLine matches how the parser says where something is wrong.
var yamlLine = regexp.MustCompile(`^yaml: (?:line (\d+): )?(?s:(.*))$`)

func yamlError(err error) error {
	e := &lineError{msg: err.Error()}
	if m := yamlLine.FindStringSubmatch(e.msg); m != nil {
		e.line, _ = strconv.Atoi(m[1])
		e.msg = m[2]
		if e.line > 0 && strings.HasPrefix(e.msg, "did not find expected") {
			e.line++ // the parser counts from 0 and the scanner from 1 (fail() in decode.go)
		}
	}
	return e
}

type yamlReader struct{ values int }

func (p *yamlReader) value(n *yaml.Node, depth int) (value, error) {
	if p.values++; p.values > maxValues || depth > maxDepth {
		return value{}, errTooMuch
	}
	v := value{line: n.Line}
	switch n.Kind {
	case yaml.DocumentNode:
		return p.value(n.Content[0], depth+1)
	case yaml.AliasNode:
		v, err := p.value(n.Alias, depth+1)
		v.line = n.Line
		return v, err
	case yaml.SequenceNode:
		v.kind = list
		for _, item := range n.Content {
			child, err := p.value(item, depth+1)
			if err != nil {
				return v, err
			}
			v.items = append(v.items, child)
		}
	case yaml.MappingNode:
		v.kind = object
		return p.mapping(v, n, depth)
	default:
		v.kind, v.text = scalar(n)
	}
	return v, nil
}

// mapping reads an object. Its own keys win over those that "<<" brings in.
func (p *yamlReader) mapping(v value, n *yaml.Node, depth int) (value, error) {
	var merged, own []field
	for i := 0; i+1 < len(n.Content); i += 2 {
		key := n.Content[i]
		child, err := p.value(n.Content[i+1], depth+1)
		if err != nil {
			return v, err
		}
		switch {
		case key.Kind == yaml.ScalarNode && key.Tag == "!!merge":
			for _, from := range append(child.items, child) {
				merged = append(merged, from.fields...)
			}
		case key.Kind != yaml.ScalarNode:
			return v, &lineError{key.Line, "a key must be a text"}
		default:
			own = append(own, field{key: key.Value, line: key.Line, value: child})
		}
	}
	for _, f := range merged {
		if _, has := (value{fields: own}).get(f.key); !has {
			v.fields = append(v.fields, f)
		}
	}
	v.fields = append(v.fields, own...)
	return v, nil
}

func scalar(n *yaml.Node) (kind, string) {
	switch n.ShortTag() {
	case "!!null":
		return null, ""
	case "!!bool":
		return truth, strings.ToLower(n.Value)
	case "!!int", "!!float":
		return number, n.Value
	}
	return text, n.Value
}
