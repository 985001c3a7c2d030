package app

import (
	"fmt"
	"math"
	"strconv"
	"strings"
)

// Size is an amount of memory in bytes.
type Size uint64

// MinSize is the smallest limit on memory: no program starts in less.
const MinSize Size = 1 << 20

// ParseSize reads a size as systemd does in MemoryMax= (parse_size in src/basic/parse-util.c):
// bytes, or a whole number with one of the suffixes K, M, G, T to the base of 1024. Fractions,
// percentages and "infinity" are refused.
func ParseSize(s string) (Size, error) {
	number, shift := s, 0
	if at := strings.IndexAny(s, "KMGT"); at >= 0 && at == len(s)-1 {
		number, shift = s[:at], 10*(1+strings.IndexByte("KMGT", s[at]))
	}
	n, err := strconv.ParseUint(number, 10, 64)
	if err != nil || n > math.MaxInt64>>shift {
		return 0, fmt.Errorf("parse size %q: it must be a whole number of bytes, or end in K, M, G or T", s)
	}
	return Size(n << shift), nil
}

// String writes s so that systemd and ParseSize read it back, with the largest suffix that leaves a
// whole number.
func (s Size) String() string {
	for i, suffix := range "TGMK" {
		if shift := 10 * (4 - i); s != 0 && s&(1<<shift-1) == 0 {
			return strconv.FormatUint(uint64(s)>>shift, 10) + string(suffix)
		}
	}
	return strconv.FormatUint(uint64(s), 10)
}

// ParseSizeOption reads the value of an option of the command line, for example "--max-memory=".
func ParseSizeOption(option, s string) (Size, error) {
	size, err := ParseSize(s)
	if err != nil {
		return 0, inputErrorf(option+"512M", "%s must be a size such as 512M or 2G, got %q", option, s)
	}
	return size, checkSize(option, size)
}

func checkSize(option string, s Size) error {
	if s < MinSize || s > math.MaxInt64 {
		return inputErrorf(option+"512M", "%s must be at least %s, got %s", option, MinSize, s)
	}
	return nil
}
