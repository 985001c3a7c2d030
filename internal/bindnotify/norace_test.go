//go:build !race

package bindnotify

// mostMemory of a supervisor after a flood, in kB.
const mostMemory = 8 << 10
