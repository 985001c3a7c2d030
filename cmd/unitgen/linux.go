package main

import "golang.org/x/sys/unix"

// isTerminal is isatty(3).
func isTerminal(fd uintptr) bool {
	_, err := unix.IoctlGetTermios(int(fd), unix.TCGETS)
	return err == nil
}

// screenSize is that of a terminal, or of one that does not say, 80 by 24.
func screenSize(fd uintptr) (columns, rows int) {
	size, err := unix.IoctlGetWinsize(int(fd), unix.TIOCGWINSZ)
	if err != nil || size.Col == 0 || size.Row == 0 {
		return 80, 24
	}
	return int(size.Col), int(size.Row)
}
