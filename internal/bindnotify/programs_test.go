package bindnotify

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strconv"
	"sync"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// programs are what is supervised, by name.
var programs = map[string]func(args []string) error{
	"server":   serverProgram,
	"options":  optionsProgram,
	"again":    againProgram,
	"binds":    bindsProgram,
	"flood":    floodProgram,
	"child":    childProgram,
	"steer":    steerProgram,
	"unseen":   unseenProgram,
	"measure":  measureProgram,
	"children": childrenProgram,
}

func report(v any) error { return json.NewEncoder(os.Stdout).Encode(v) }

// serverProgram listens and answers until its standard input ends; it binds on a thread that is not
// its first.
func serverProgram(args []string) error {
	ln, err := net.Listen(args[0], args[1])
	if err != nil {
		return err
	}
	go func() { // ends with the process
		for {
			conn, err := ln.Accept()
			if err != nil {
				return
			}
			fmt.Fprint(conn, conn.RemoteAddr())
			conn.Close()
		}
	}()
	_, err = io.Copy(io.Discard, os.Stdin)
	return err
}

// optionsResult is what a program finds on its socket after bind(2) and listen(2).
type optionsResult struct {
	Same                      bool // it is the listener that was passed
	Nonblocking, ClosesOnExec bool
	KeepAlive, NoDelay, Idle  int
	UserTimeout, DeferAccept  int
	ReceiveBuffer, Class      int
	Timeout                   int
	Backlog                   uint32
	Address                   string
}

func optionsProgram(args []string) error {
	port, _ := strconv.Atoi(args[0])
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return err
	}
	for _, o := range [][3]int{
		{unix.SOL_SOCKET, unix.SO_REUSEADDR, 1}, {unix.SOL_SOCKET, unix.SO_REUSEPORT, 1}, {unix.SOL_SOCKET, unix.SO_KEEPALIVE, 1},
		{unix.IPPROTO_TCP, unix.TCP_NODELAY, 1}, {unix.IPPROTO_TCP, unix.TCP_KEEPIDLE, 77}, {unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT, 12345},
		{unix.IPPROTO_TCP, unix.TCP_DEFER_ACCEPT, 1}, {unix.SOL_SOCKET, unix.SO_RCVBUF, 65536}, {unix.IPPROTO_IP, unix.IP_TOS, 0x10},
	} {
		if err := unix.SetsockoptInt(fd, o[0], o[1], o[2]); err != nil {
			return err
		}
	}
	if err := unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &unix.Timeval{Sec: 7}); err != nil {
		return err
	}
	var r optionsResult
	if err := bindAndListen(fd, port); err != nil {
		return err
	}
	own, _ := socket(fd).id()
	passed, _ := socket(3).id()
	r.Same = own == passed
	flags, _ := unix.FcntlInt(uintptr(fd), unix.F_GETFL, 0)
	r.Nonblocking = flags&unix.O_NONBLOCK != 0
	flags, _ = unix.FcntlInt(uintptr(fd), unix.F_GETFD, 0)
	r.ClosesOnExec = flags&unix.FD_CLOEXEC != 0
	option := func(level, name int) int { v, _ := unix.GetsockoptInt(fd, level, name); return v }
	r.KeepAlive, r.NoDelay = option(unix.SOL_SOCKET, unix.SO_KEEPALIVE), option(unix.IPPROTO_TCP, unix.TCP_NODELAY)
	r.Idle, r.UserTimeout = option(unix.IPPROTO_TCP, unix.TCP_KEEPIDLE), option(unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT)
	r.DeferAccept, r.ReceiveBuffer = option(unix.IPPROTO_TCP, unix.TCP_DEFER_ACCEPT), option(unix.SOL_SOCKET, unix.SO_RCVBUF)
	r.Class = option(unix.IPPROTO_IP, unix.IP_TOS)
	if info, err := unix.GetsockoptTCPInfo(fd, unix.IPPROTO_TCP, unix.TCP_INFO); err == nil {
		r.Backlog = info.Sacked // sk_max_ack_backlog, of listeners
	}
	if a, ok := socket(fd).local(); ok {
		r.Address = a.String()
	}
	if t, err := unix.GetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO); err == nil {
		r.Timeout = int(t.Sec)
	}
	return report(r)
}

func bindAndListen(fd, port int) error {
	if err := unix.Bind(fd, &unix.SockaddrInet4{Port: port}); err != nil {
		return os.NewSyscallError("bind", err)
	}
	return os.NewSyscallError("listen", unix.Listen(fd, 5))
}

// againProgram tests its port before it serves, as development servers do.
func againProgram(args []string) error {
	for range 3 {
		ln, err := net.Listen("tcp4", "0.0.0.0:"+args[0])
		if err != nil {
			return err
		}
		if err := ln.Close(); err != nil {
			return err
		}
	}
	return serverProgram([]string{"tcp4", "0.0.0.0:" + args[0]})
}

// bindsProgram binds each pair of network and address, and says what came of it: an address or an
// error.
func bindsProgram(args []string) error {
	results := make([]string, 0, len(args)/2)
	for i := 0; i+1 < len(args); i += 2 {
		results = append(results, tryBind(args[i], args[i+1]))
	}
	return report(results)
}

func tryBind(network, address string) string {
	var local net.Addr
	var err error
	switch network {
	case "udp", "unixgram":
		var pc net.PacketConn
		if pc, err = net.ListenPacket(network, address); err == nil {
			local = pc.LocalAddr()
		}
	case "netlink":
		var fd int
		if fd, err = unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW, unix.NETLINK_ROUTE); err == nil {
			err = unix.Bind(fd, &unix.SockaddrNetlink{Family: unix.AF_NETLINK})
			local = &net.UnixAddr{Name: "netlink"}
		}
	default:
		var ln net.Listener
		if ln, err = net.Listen(network, address); err == nil {
			local = ln.Addr()
		}
	}
	var errno syscall.Errno
	if errors.As(err, &errno) {
		return errno.Error()
	}
	if err != nil {
		return err.Error()
	}
	return local.String()
}

// floodProgram calls bind and listen with whatever it likes, from several threads.
func floodProgram(args []string) error {
	port, _ := strconv.Atoi(args[0])
	calls, _ := strconv.Atoi(args[1])
	var wait sync.WaitGroup
	for range 4 {
		wait.Go(func() {
			fd, _ := unix.Socket(unix.AF_INET, unix.SOCK_STREAM, 0)
			pipe := make([]int, 2)
			_ = unix.Pipe(pipe)
			memory := make([]byte, 64)
			for i := range calls {
				for j := range memory {
					memory[j] = byte(rand.Uint32())
				}
				at := uintptr(unsafe.Pointer(&memory[0]))
				length := uintptr(rand.IntN(64))
				switch i % 8 {
				case 0: // an address that may be the app's
					memory[0], memory[1], memory[2], memory[3] = unix.AF_INET, 0, byte(port>>8), byte(port)
					_ = unix.Close(fd)
					fd, _ = unix.Socket(unix.AF_INET, unix.SOCK_STREAM, 0)
					length = 16
				case 1:
					at = uintptr(rand.Uint64())
				case 2:
					length = uintptr(rand.Uint64())
				case 3:
					memory[0], memory[1] = unix.AF_INET6, 0
				case 4: // any number of different addresses
					memory[0], memory[1], memory[4] = unix.AF_INET, 0, 127
					length = 16
				}
				target := fd
				if i%5 == 0 {
					target = []int{pipe[0], -1, 1 << 30, int(rand.Int32())}[rand.IntN(4)]
				}
				_, _, _ = unix.Syscall(unix.SYS_BIND, uintptr(target), at, length)
				if i%16 == 0 {
					_, _, _ = unix.Syscall(unix.SYS_LISTEN, uintptr(target), uintptr(rand.Uint32()), 0)
				}
			}
			_ = unix.Close(fd)
		})
	}
	wait.Wait()
	if err := report("flooded"); err != nil {
		return err
	}
	_, err := io.Copy(io.Discard, os.Stdin)
	return err
}

// childProgram has its server in a grandchild, behind a shell's pipeline.
func childProgram(args []string) error {
	exe, err := os.Readlink("/proc/self/exe")
	if err != nil {
		return err
	}
	cmd := exec.Command("/bin/sh", "-c", `exec 4<&0; "$0" "$@" <&4 4<&- | cat`, exe, "tcp4", args[0])
	cmd.Env = append(os.Environ(), programVariable+"=server")
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	return cmd.Run()
}

// childrenProgram says whether it has children that it did not start.
func childrenProgram(args []string) error {
	if result := tryBind("tcp4", args[0]); result != args[0] {
		return errors.New(result)
	}
	var ws unix.WaitStatus
	_, err := unix.Wait4(-1, &ws, unix.WNOHANG, nil)
	return report(err == unix.ECHILD)
}

// steerProgram would have all connections of the group for itself.
func steerProgram(args []string) error {
	port, _ := strconv.Atoi(args[0])
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM, 0)
	if err != nil {
		return err
	}
	if err := bindAndListen(fd, port); err != nil {
		return err
	}
	mine := []unix.SockFilter{{Code: unix.BPF_RET | unix.BPF_K, K: 0}}
	prog := unix.SockFprog{Len: 1, Filter: &mine[0]}
	if err := unix.SetsockoptSockFprog(fd, unix.SOL_SOCKET, unix.SO_ATTACH_REUSEPORT_CBPF, &prog); err != nil {
		return err
	}
	_ = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_DETACH_REUSEPORT_BPF, 0)
	return report("attached")
}

// unseenProgram does what binds, or hinders a supervisor, in ways that are not answered.
func unseenProgram([]string) error {
	_, _, _ = unix.Syscall(unix.SYS_IO_URING_SETUP, 1, 0, 0)
	allow := []unix.SockFilter{{Code: unix.BPF_RET | unix.BPF_K, K: unix.SECCOMP_RET_ALLOW}}
	prog := unix.SockFprog{Len: 1, Filter: &allow[0]}
	_, _, errno := unix.Syscall(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER, unix.SECCOMP_FILTER_FLAG_NEW_LISTENER, uintptr(unsafe.Pointer(&prog)))
	if err := report(errno.Error()); err != nil {
		return err
	}
	_, err := io.Copy(io.Discard, os.Stdin)
	return err
}

// measureProgram measures what bind and listen take, the median, and a call that is never asked
// about, the best of many rounds: the rest is what else the machine does.
func measureProgram(args []string) error {
	port, _ := strconv.Atoi(args[0])
	rounds, _ := strconv.Atoi(args[1])
	// A unit has filters of its own, which make the kernel's way into every call longer already.
	runtime.LockOSThread()
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return err
	}
	allow := []unix.SockFilter{{Code: unix.BPF_RET | unix.BPF_K, K: unix.SECCOMP_RET_ALLOW}}
	if err := unix.Prctl(unix.PR_SET_SECCOMP, unix.SECCOMP_MODE_FILTER, uintptr(unsafe.Pointer(&unix.SockFprog{Len: 1, Filter: &allow[0]})), 0, 0); err != nil {
		return err
	}
	var binds, listens, others []time.Duration
	for range rounds {
		fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM, 0)
		if err != nil {
			return err
		}
		_ = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEADDR, 1)
		began := time.Now()
		if err := unix.Bind(fd, &unix.SockaddrInet4{Port: port}); err != nil {
			return err
		}
		bound := time.Now()
		if err := unix.Listen(fd, 128); err != nil {
			return err
		}
		binds, listens = append(binds, bound.Sub(began)), append(listens, time.Since(bound))
		unix.Close(fd)
		began = time.Now()
		for range 1000 {
			_, _, _ = unix.RawSyscall(unix.SYS_GETPPID, 0, 0, 0)
		}
		others = append(others, time.Since(began)/1000)
	}
	median := func(d []time.Duration) float64 {
		slices.Sort(d)
		return float64(d[len(d)/2]) / 1e3
	}
	return report(map[string]float64{"bind µs": median(binds), "listen µs": median(listens), "getppid ns": float64(slices.Min(others))})
}
