package steered

import (
	"errors"
	"log/slog"
	"net"
	"os"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/unitgen/unitgen/internal/needs"
	"github.com/unitgen/unitgen/internal/shim/path"
	"github.com/unitgen/unitgen/internal/shim/path/pathtest"
	"github.com/unitgen/unitgen/internal/sockdiag"
)

// The real kernel steers.
func TestPath(t *testing.T) {
	pathtest.Run(t, func(t *testing.T) pathtest.World {
		needs.Root(t, "loading a BPF program takes CAP_BPF")
		b := &bench{t: t, address: &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}, listeners: make(map[int]int)}
		b.listenParking()
		return pathtest.World{
			Address: b.text(),
			Open: func(s *path.Store) (pathtest.Path, error) {
				diag, err := sockdiag.Open()
				if err != nil {
					return nil, err
				}
				return Open(Options{
					App: "app", Parking: []int{b.dup(b.listeners[path.Parking])}, Diag: []int{diag}, Store: s, Log: slog.New(slog.DiscardHandler),
					Cgroup: func(int) (string, error) { return "", errors.New("nobody to ask") },
				})
			},
			Unit: func(instance int) []int {
				if b.listeners[instance] == 0 {
					b.listeners[instance] = b.listen()
				}
				return []int{b.dup(b.listeners[instance])}
			},
			Program: func(_ path.Path, instance int) net.Listener {
				file := os.NewFile(uintptr(b.dup(b.listeners[instance])), "listener")
				defer file.Close()
				ln, err := net.FileListener(file)
				if err != nil {
					t.Fatal(err)
				}
				return ln
			},
			Refuse: func(int) error { return errors.New("the kernel refuses by itself") },
		}
	})
}
