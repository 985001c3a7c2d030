package rig

import (
	"runtime"

	"golang.org/x/sys/unix"
)

// onOwnThread runs fn in a new goroutine on an operating system thread of its own, which ends with
// fn. So fn may change what belongs to a thread (its namespaces) and need not change it back: the
// runtime never reuses the thread.
//
// The process's first thread cannot end, and its namespaces are what /proc/PID shows of the
// process, so fn must not run there. Keeping that thread locked until fn has its own makes sure.
func onOwnThread(fn func()) {
	started := make(chan struct{})
	go func() {
		runtime.LockOSThread()
		if unix.Gettid() == unix.Getpid() {
			defer runtime.UnlockOSThread()
			onOwnThread(fn)
			close(started)
			return
		}
		close(started)
		fn()
	}()
	<-started
}
