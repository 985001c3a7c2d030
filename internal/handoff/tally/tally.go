// Package tally is the memory that a balancer and an instance share on the handoff path: the instance counts its connections
// there, the balancer looks when it needs to know. So nobody is woken to be told, which costs more than all else that is
// done for a connection. lbshim.protocol(7) has the layout.
//
// Looking and counting cost no system call; one page of memory per instance. Each side treats what the other writes as
// hostile: the size is sealed (fcntl(2), F_ADD_SEALS), so that neither can make the other fault.
package tally

import (
	"errors"
	"fmt"
	"os"
	"sync/atomic"
	"unsafe"

	"golang.org/x/sys/unix"
)

// size is one page, the least that is mapped.
const size = 4096

// seals that a tally has: its size is what it is.
const seals = unix.F_SEAL_SHRINK | unix.F_SEAL_GROW | unix.F_SEAL_SEAL

// layout is the shared memory. The two sides write to cache lines of their own.
type layout struct {
	// The instance's.
	answered, missed, closed atomic.Uint64
	used, accepting          atomic.Uint32
	_                        [32]byte
	// The balancer's.
	tell atomic.Uint32
}

// Counts are those of wire.Report that change with each connection.
type Counts struct{ Answered, Missed, Closed uint64 }

// Max has the greater one of each. Counts never go back.
func (c Counts) Max(o Counts) Counts {
	return Counts{max(c.Answered, o.Answered), max(c.Missed, o.Missed), max(c.Closed, o.Closed)}
}

// Tally is one side's view. Its methods are safe for concurrent use, but for Close, which must be the last.
type Tally struct {
	memory []byte
	at     *layout
}

// New makes a tally of zeros, and a descriptor (close-on-exec) for the other side, which the caller closes.
func New() (t *Tally, fd int, err error) {
	if fd, err = unix.MemfdCreate("unitgen-tally", unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING|unix.MFD_NOEXEC_SEAL); errors.Is(err, unix.EINVAL) {
		fd, err = unix.MemfdCreate("unitgen-tally", unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING) // Linux before 6.3
	}
	if err != nil {
		return nil, -1, os.NewSyscallError("memfd_create", err)
	}
	err = os.NewSyscallError("ftruncate", unix.Ftruncate(fd, size))
	if err == nil {
		_, err = unix.FcntlInt(uintptr(fd), unix.F_ADD_SEALS, seals)
		err = os.NewSyscallError("fcntl F_ADD_SEALS", err)
	}
	if err == nil {
		t, err = Map(fd)
	}
	if err != nil {
		unix.Close(fd)
		return nil, -1, fmt.Errorf("make tally: %w", err)
	}
	return t, fd, nil
}

// Map is the tally that fd is of. It borrows fd. What is no tally is an error.
func Map(fd int) (*Tally, error) {
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return nil, os.NewSyscallError("fstat", err)
	}
	have, err := unix.FcntlInt(uintptr(fd), unix.F_GET_SEALS, 0)
	if err != nil || have&seals != seals || st.Size != size {
		return nil, errors.New("map tally: not a sealed page of memory")
	}
	memory, err := unix.Mmap(fd, 0, size, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		return nil, os.NewSyscallError("mmap", err)
	}
	return &Tally{memory: memory, at: (*layout)(unsafe.Pointer(&memory[0]))}, nil
}

// Close unmaps it; the other side's view stays.
func (t *Tally) Close() {
	if t.memory != nil {
		_ = unix.Munmap(t.memory)
		t.memory, t.at = nil, nil
	}
}

// Accepting says that the instance is about to accept a connection, which the next Count tells of. It may be in either
// already, the queue or the counts, for who looks in between.
func (t *Tally) Accepting() { t.at.accepting.Store(1) }

// Accepted ends what Accepting began, after Count.
func (t *Tally) Accepted() { t.at.accepting.Store(0) }

// Count sets the counts, and returns whether the balancer wants to be told. Callers that compete hold a lock.
func (t *Tally) Count(c Counts) (tell bool) {
	t.at.answered.Store(c.Answered)
	t.at.missed.Store(c.Missed)
	t.at.closed.Store(c.Closed)
	t.at.used.Store(1)
	return t.at.tell.Load() != 0
}

// Look returns the counts, and whether the instance is just accepting; used is false if it has counted nothing here. The counts
// contradict each other only if the instance lies: each is read before those that it is part of.
func (t *Tally) Look() (c Counts, accepting, used bool) {
	used = t.at.used.Load() != 0
	accepting = t.at.accepting.Load() != 0
	c.Closed = t.at.closed.Load()
	c.Missed = t.at.missed.Load()
	c.Answered = t.at.answered.Load()
	return c, accepting, used
}

// Tell says whether the balancer wants to be told of what is counted from now on. What was counted before, it must look for
// after this.
func (t *Tally) Tell(tell bool) {
	var v uint32
	if tell {
		v = 1
	}
	if t.at.tell.Load() != v {
		t.at.tell.Store(v)
	}
}
