package lifecycle

import (
	"bufio"
	"io"
	"slices"
	"strings"

	"github.com/unitgen/unitgen/internal/sockdiag"
)

// UnixTable is where the kernel lists the unix sockets of the host's network.
const UnixTable = "/proc/1/net/unix"

// CountUnix counts the accepted connections of listening unix sockets by their paths, as table has them (unix_seq_show() in
// net/unix/af_unix.c). Whether one is idle nothing tells, so that each counts as busy. A connection of a client in another network
// namespace is in the table of that one.
func CountUnix(table io.Reader, paths []string) (sockdiag.Stat, error) {
	const accepted = "03" // SS_CONNECTED; one that waits in the listener's queue has no socket yet, and 02
	var s sockdiag.Stat
	lines := bufio.NewScanner(table)
	for lines.Scan() {
		words := strings.SplitN(strings.Join(strings.Fields(lines.Text()), " "), " ", 8)
		if len(words) == 8 && words[5] == accepted && slices.Contains(paths, words[7]) {
			s.Open++
			s.Busy++
		}
	}
	return s, lines.Err()
}
