// Package tally is the memory that a balancer and an instance share on the handoff path. The
// instance counts its connections there, and the balancer reads the counts when it needs them. This
// saves the wake-up for a message, which costs more than all other work for a connection.
// lbshim.protocol(7) has the layout.
//
// Reading and counting cost no system call; an instance costs one page of memory. Each side treats
// the other's values as hostile. The size is sealed (fcntl(2), F_ADD_SEALS), so neither side can
// cause a fault in the other.
package tally

import (
	"errors"
	"fmt"
	"os"
	"sync/atomic"
	"unsafe"

	"golang.org/x/sys/unix"
)

// size is one page, the least that can be mapped.
const size = 4096

// seals fix the size of a tally.
const seals = unix.F_SEAL_SHRINK | unix.F_SEAL_GROW | unix.F_SEAL_SEAL

// layout is the shared memory. The two sides write to different cache lines.
type layout struct {
	// Written by the instance.
	answered, missed, closed atomic.Uint64
	used, accepting          atomic.Uint32
	_                        [32]byte
	// Written by the balancer.
	tell atomic.Uint32
}

// Counts are the numbers of wire.Report that change with each connection.
type Counts struct{ Answered, Missed, Closed uint64 }

// Max returns the greater of each number. Counts never decrease.
func (c Counts) Max(o Counts) Counts {
	return Counts{max(c.Answered, o.Answered), max(c.Missed, o.Missed), max(c.Closed, o.Closed)}
}

// Tally is one side's view. Its methods are safe for concurrent use, except Close, which must be
// the last call.
type Tally struct {
	memory []byte
	at     *layout
}

// New makes a tally of zeros, and a descriptor (close-on-exec) for the other side, which the caller
// closes.
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

// Map maps the tally of fd. Map borrows fd. A descriptor that is not a tally is an error.
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

// Close unmaps the tally. The other side keeps its view.
func (t *Tally) Close() {
	if t.memory != nil {
		_ = unix.Munmap(t.memory)
		t.memory, t.at = nil, nil
	}
}

// Accepting marks that the instance is about to accept a connection. Until the next Count, the
// connection may appear both in the queue and in the counts.
func (t *Tally) Accepting() { t.at.accepting.Store(1) }

// Accepted clears the mark of Accepting, after Count.
func (t *Tally) Accepted() { t.at.accepting.Store(0) }

// Count sets the counts, and returns whether the balancer wants a message. Concurrent callers hold
// a lock.
func (t *Tally) Count(c Counts) (tell bool) {
	t.at.answered.Store(c.Answered)
	t.at.missed.Store(c.Missed)
	t.at.closed.Store(c.Closed)
	t.at.used.Store(1)
	return t.at.tell.Load() != 0
}

// Look returns the counts, and whether the instance is just accepting. used is false if the
// instance has counted nothing here. Each number is read before the numbers that include it, so the
// counts contradict each other only if the instance lies.
func (t *Tally) Look() (c Counts, accepting, used bool) {
	used = t.at.used.Load() != 0
	accepting = t.at.accepting.Load() != 0
	c.Closed = t.at.closed.Load()
	c.Missed = t.at.missed.Load()
	c.Answered = t.at.answered.Load()
	return c, accepting, used
}

// Tell sets whether the balancer wants messages for later counts. After this call the balancer must
// read the counts once.
func (t *Tally) Tell(tell bool) {
	var v uint32
	if tell {
		v = 1
	}
	if t.at.tell.Load() != v {
		t.at.tell.Store(v)
	}
}
