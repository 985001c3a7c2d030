package view

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"

	"github.com/unitgen/unitgen/internal/app"
	"github.com/unitgen/unitgen/internal/fault"
)

// LogFields are the fields of the journal that a Log reads, as the value of journalctl's option
// --output-fields=. Without --all journalctl prints no field of more than 4096 bytes.
const LogFields = "MESSAGE,PRIORITY,SYSLOG_IDENTIFIER,_PID,_SYSTEMD_UNIT,_SYSTEMD_USER_UNIT,UNIT,USER_UNIT"

// tooLong stands for a message that journalctl does not print.
const tooLong = "(a line of more than 4096 bytes)"

// Log is what the journal has of an app, a line for each entry: time, instance, message.
type Log struct {
	App    app.Name
	Colour bool
	Now    func() time.Time // its zone is that of the times
}

// Print prints what "journalctl --output=json" writes until it ends. A program may write any field
// of an entry whose name does not begin with "_", and its messages cannot act on a terminal.
func (l Log) Print(w io.Writer, journal io.Reader) error {
	entries := json.NewDecoder(bufio.NewReader(journal))
	width := len(l.App)
	for {
		var e entry
		if err := entries.Decode(&e); err != nil {
			if errors.Is(err, io.EOF) {
				return nil
			}
			return fmt.Errorf("read journal: %w", err)
		}
		who, number := e.who(l.App)
		width = max(width, len(who))
		message := tooLong
		if e.Message != nil {
			message = fault.Printable(string(*e.Message))
		}
		if e.PID == "1" && e.Identifier == "systemd" {
			message = "systemd: " + message
		}
		who = fmt.Sprintf("%-*s", width, who)
		if l.Colour {
			who = instanceColour(number).Paint(who)
			if e.Priority != "" && e.Priority <= "3" {
				message = Red.Paint(message)
			}
		}
		if _, err := fmt.Fprintf(w, "%s %s %s\n", e.when(l.Now()), who, message); err != nil {
			return fmt.Errorf("write: %w", err)
		}
	}
}

// entry is one entry of the journal.
type entry struct {
	Time       field  `json:"__REALTIME_TIMESTAMP"`
	Message    *field `json:"MESSAGE"`
	Priority   field  `json:"PRIORITY"`
	Identifier field  `json:"SYSLOG_IDENTIFIER"`
	PID        field  `json:"_PID"`
	Unit       field  `json:"_SYSTEMD_UNIT"`
	UserUnit   field  `json:"_SYSTEMD_USER_UNIT"`
	About      field  `json:"UNIT"` // of PID 1's messages
	UserAbout  field  `json:"USER_UNIT"`
}

// field is a field of the journal's export in JSON: text, a list of numbers for bytes that are
// none, a list of both for several fields of one name, of which the first counts, or null for one
// that is too long (journal-fields(7)).
type field string

func (f *field) UnmarshalJSON(text []byte) error {
	var value any
	if err := json.Unmarshal(text, &value); err != nil {
		return err
	}
	*f = fieldOf(value)
	return nil
}

func fieldOf(value any) field {
	list, isList := value.([]any)
	if !isList {
		text, _ := value.(string)
		return field(text)
	}
	bytes := make([]byte, 0, len(list))
	for _, part := range list {
		number, ok := part.(float64)
		if !ok {
			return fieldOf(part)
		}
		bytes = append(bytes, byte(number))
	}
	return field(bytes)
}

func (f field) or(other string) string {
	if f == "" {
		return other
	}
	return string(f)
}

// who is the unit that an entry is of or about, in few words, and the number of its instance; 0 for
// none.
func (e entry) who(name app.Name) (word string, number int) {
	unit := e.About.or(e.UserAbout.or(e.UserUnit.or(string(e.Unit))))
	part, _ := name.ParseUnit(unit)
	return fault.Printable(strings.TrimSuffix(unit, ".service")), part.Instance
}

// when is the time of the entry, with the day where that is not today.
func (e entry) when(now time.Time) string {
	µs, _ := strconv.ParseInt(string(e.Time), 10, 64)
	at := time.UnixMicro(µs).In(now.Location())
	if at.Format(time.DateOnly) == now.Format(time.DateOnly) {
		return at.Format(time.TimeOnly)
	}
	return at.Format("Jan _2 15:04:05")
}

// instanceColour tells instances apart; the balancer has none.
func instanceColour(number int) Colour {
	if number == 0 {
		return ""
	}
	colours := [...]int{36, 35, 34, 32, 33, 96, 95, 94, 92, 93}
	return Colour(fmt.Sprintf("\x1b[%dm", colours[(number-1)%len(colours)]))
}
