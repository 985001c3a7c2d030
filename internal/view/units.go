package view

import (
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"
)

// Span is a time span in at most two units, as "2h 4min". What is less than a second is 0s.
func Span(d time.Duration) string {
	var words []string
	for _, u := range [...]struct {
		d    time.Duration
		name string
	}{{24 * time.Hour, "d"}, {time.Hour, "h"}, {time.Minute, "min"}, {time.Second, "s"}} {
		n := d / u.d
		switch {
		case len(words) == 1 && n == 0:
			return words[0]
		case n > 0 || u.d == time.Second:
			words = append(words, fmt.Sprintf("%d%s", n, u.name))
			d -= n * u.d
		}
		if len(words) == 2 {
			break
		}
	}
	return strings.Join(words, " ")
}

// Percent is a share in percent: 100 is one processor. It has one digit behind the point below 10.
func Percent(x float64) string { return digits(x) + "%" }

// PerSecond is a rate, with one digit behind the point below 10.
func PerSecond(x float64) string {
	if x == 0 {
		return "0"
	}
	return digits(x)
}

func digits(x float64) string {
	if x < 9.95 {
		return strconv.FormatFloat(x, 'f', 1, 64)
	}
	return strconv.FormatFloat(x, 'f', 0, 64)
}

// Bytes is a size as systemctl has it: powers of 1024, with one digit behind the point below 100.
func Bytes(n int64) string {
	if n < 1024 {
		return fmt.Sprintf("%dB", n)
	}
	x := float64(n)
	for i, unit := range "KMGTPE" {
		x /= 1024
		if x < 99.95 && i > 0 {
			return strings.TrimSuffix(strconv.FormatFloat(x, 'f', 1, 64), ".0") + string(unit)
		}
		if x < 1023.5 {
			return strconv.FormatFloat(x, 'f', 0, 64) + string(unit)
		}
	}
	return strconv.FormatInt(n, 10)
}

// Counted is a number of things, as "1 app" or "3 apps".
func Counted(n int, noun string) string {
	if n == 1 {
		return "1 " + noun
	}
	return fmt.Sprintf("%d %ss", n, noun)
}

// rounded keeps two digits behind the point, for numbers of JSON.
func rounded(x float64) float64 { return math.Round(x*100) / 100 }
