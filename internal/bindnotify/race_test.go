//go:build race

package bindnotify

// mostMemory of a supervisor after a flood, in kB: the race detector has memory of its own.
const mostMemory = 128 << 10
