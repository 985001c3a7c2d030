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

// CountUnix counts the accepted connections of listening unix sockets by their paths in table
// (unix_seq_show() in net/unix/af_unix.c). No interface shows whether a connection is idle, so each
// counts as busy. A client in another network namespace has its connection in the table of that
// namespace.
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
