package nodecluster

import "bytes"

// MaxLine is the longest line that is parsed. Longer lines are read and dropped: only messages of
// the program can be longer.
const MaxLine = 64 << 10

// chunk is how much is read at a time.
const chunk = 4 << 10

// lines splits input into lines. The zero lines is empty.
type lines struct {
	buf      []byte
	from, to int // of buf: what has come and is not cut
	last     int // where the last line begins
	skip     bool
}

// next removes a line of at most MaxLine bytes; it is valid until more input is added. It returns
// false if there is no complete line.
func (l *lines) next() ([]byte, bool) {
	for {
		i := bytes.IndexByte(l.buf[l.from:l.to], '\n')
		if i < 0 {
			if l.to-l.from > MaxLine {
				l.from, l.to, l.skip = 0, 0, true // and the rest of the line
			}
			return nil, false
		}
		whole := !l.skip && i <= MaxLine
		l.last, l.from, l.skip = l.from, l.from+i+1, false
		if whole {
			return l.buf[l.last : l.from-1], true
		}
	}
}

// putBack has next return its last line again.
func (l *lines) putBack() { l.from = l.last }

// space is where more can be put, which add then says.
func (l *lines) space() []byte {
	if l.from > 0 {
		l.to = copy(l.buf, l.buf[l.from:l.to])
		l.from = 0
	}
	if len(l.buf)-l.to < chunk {
		l.buf = append(l.buf[:l.to], make([]byte, l.to+chunk)...)
	}
	return l.buf[l.to : l.to+chunk]
}

func (l *lines) add(n int) { l.to += n }
