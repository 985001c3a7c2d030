package imports

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
)

// cronField is a field of a cron pattern: its bounds, and the names that it allows for numbers,
// beginning with its first number.
type cronField struct {
	low, high int
	names     string
}

var (
	cronSecond = cronField{0, 59, ""}
	cronMinute = cronField{0, 59, ""}
	cronHour   = cronField{0, 23, ""}
	cronDay    = cronField{1, 31, ""}
	cronMonth  = cronField{1, 12, "jan feb mar apr may jun jul aug sep oct nov dec"}
	cronWeek   = cronField{0, 7, "sun mon tue wed thu fri sat sun"}
)

var weekdays = [...]string{"Sun", "Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun"}

// calendar converts a cron pattern of five fields, or of six with seconds first, to a calendar
// expression (systemd.time(7)).
func calendar(pattern string) (string, error) {
	if words := map[string]string{"@hourly": "hourly", "@daily": "daily", "@midnight": "daily", "@weekly": "Sun *-*-* 00:00:00",
		"@monthly": "monthly", "@yearly": "yearly", "@annually": "yearly"}[strings.TrimSpace(pattern)]; words != "" {
		return words, nil
	}
	fields := strings.Fields(pattern)
	if len(fields) == 5 {
		fields = append([]string{"0"}, fields...)
	}
	if len(fields) != 6 {
		return "", fmt.Errorf("a cron pattern has five or six fields, got %d", len(fields))
	}
	var parts [6]string
	for i, f := range []cronField{cronSecond, cronMinute, cronHour, cronDay, cronMonth, cronWeek} {
		var err error
		if parts[i], err = f.calendar(fields[i]); err != nil {
			return "", err
		}
	}
	if parts[3] != "*" && parts[5] != "" {
		return "", errors.New("cron means either of the day and the weekday, a calendar expression both")
	}
	date := "*-" + parts[4] + "-" + parts[3] + " " + parts[2] + ":" + parts[1] + ":" + parts[0]
	return strings.TrimSpace(parts[5] + " " + date), nil
}

// calendar converts one field. The result for the weekday is empty if it is every day.
func (f cronField) calendar(text string) (string, error) {
	week := f.high == 7
	var out []string
	for part := range strings.SplitSeq(text, ",") {
		span, step, stepped := strings.Cut(part, "/")
		low, high, ranged := strings.Cut(span, "-")
		if span == "*" || span == "?" {
			low, high = strconv.Itoa(f.low), strconv.Itoa(f.high)
			if !stepped {
				if strings.Contains(text, ",") {
					return "", fmt.Errorf("%q is no field of a cron pattern", text)
				}
				if week {
					return "", nil
				}
				return "*", nil
			}
		}
		from, err := f.number(low)
		if err != nil {
			return "", err
		}
		to, by := from, 0
		if ranged || span == "*" {
			if to, err = f.number(high); err != nil || to < from {
				return "", fmt.Errorf("%q is no range of a cron pattern", span)
			}
		}
		if stepped {
			if by, err = strconv.Atoi(step); err != nil || by < 1 || by > f.high {
				return "", fmt.Errorf("%q is no step of a cron pattern", step)
			}
			if !ranged {
				to = f.high
			}
		}
		out = append(out, f.span(from, to, by, week)...)
	}
	return strings.Join(out, ","), nil
}

// span adds the numbers from one to another.
func (f cronField) span(from, to, by int, week bool) (out []string) {
	switch {
	case week: // systemd has no steps there, and its week begins on Monday
		for day := from; day <= to; day += max(by, 1) {
			if day < 7 || from > 0 {
				out = append(out, weekdays[day])
			}
		}
	case from == to:
		out = append(out, fmt.Sprintf("%02d", from))
	case by == 0:
		out = append(out, fmt.Sprintf("%02d..%02d", from, to))
	case to == f.high:
		out = append(out, fmt.Sprintf("%02d/%d", from, by))
	default:
		out = append(out, fmt.Sprintf("%02d..%02d/%d", from, to, by))
	}
	return out
}

func (f cronField) number(text string) (int, error) {
	for i, name := range strings.Fields(f.names) {
		if strings.EqualFold(name, text) {
			return f.low + i, nil
		}
	}
	n, err := strconv.Atoi(text)
	if err != nil || n < f.low || n > f.high {
		return 0, fmt.Errorf("%q must be between %d and %d", text, f.low, f.high)
	}
	return n, nil
}
