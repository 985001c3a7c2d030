// Program is a server that knows nothing of systemd: it opens its port itself, and answers who it
// is and who asks.
package main

import (
	"flag"
	"fmt"
	"log"
	"net"
	"net/http"
	"os"
	"unsafe"

	"golang.org/x/sys/unix"
)

func main() {
	network := flag.String("network", "tcp4", "tcp4, tcp6 or tcp")
	admin := flag.String("admin", "", "a second address, on the same network")
	filter := flag.String("filter", "", "own: a seccomp filter of its own, which allows everything; notify: one that wants to be asked")
	ring := flag.Bool("uring", false, "bind by io_uring, on tcp4")
	udp := flag.String("udp", "", "an address of UDP")
	flag.Parse()
	if *filter != "" {
		if err := installFilter(*filter == "notify"); err != nil {
			log.Fatal(err)
		}
	}
	if *ring {
		listen = func(_, address string) (net.Listener, error) { return listenByRing(address) }
	}
	if *udp != "" {
		if _, err := net.ListenPacket("udp", *udp); err != nil {
			log.Fatal(err)
		}
	}
	if *admin != "" {
		go serve(*network, *admin, "admin ")
	}
	if flag.NArg() == 0 {
		select {}
	}
	serve(*network, flag.Arg(0), "")
}

// listen is how the program opens its port.
var listen = net.Listen

// installFilter puts a filter on all threads that lets every system call through, or has this
// process asked about none.
func installFilter(notify bool) error {
	program := []unix.SockFilter{{Code: unix.BPF_RET | unix.BPF_K, K: unix.SECCOMP_RET_ALLOW}}
	flags := uintptr(unix.SECCOMP_FILTER_FLAG_TSYNC)
	if notify {
		flags = unix.SECCOMP_FILTER_FLAG_NEW_LISTENER
	}
	fprog := unix.SockFprog{Len: uint16(len(program)), Filter: &program[0]}
	_, _, errno := unix.Syscall(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER, flags, uintptr(unsafe.Pointer(&fprog)))
	if errno != 0 {
		return fmt.Errorf("install filter: %w", os.NewSyscallError("seccomp", errno))
	}
	return nil
}

func serve(network, address, role string) {
	ln, err := listen(network, address)
	if err != nil {
		log.Fatal(err)
	}
	log.Fatal(http.Serve(ln, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprintf(w, "%sinstance=%s pid=%d peer=%s port=%s\n", role, os.Getenv("INSTANCE"), os.Getpid(), r.RemoteAddr, os.Getenv("PORT"))
	})))
}
