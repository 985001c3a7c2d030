// Package bindnotify answers a program's own bind(2) and listen(2) with listeners that PID 1 has opened, so that a program
// which knows nothing of LISTEN_FDS serves on them unchanged. A seccomp filter has the kernel ask a supervisor, a small
// process of the same unit and user, at each bind(2) and listen(2) of the program and its children. The supervisor puts a
// duplicate of the instance's listener over the program's own descriptor, or lets the kernel go on.
//
// Cost: 0.09 ms for each bind and 0.025 ms for each listen. For every other system call, 1 ns or less beside another filter, as
// units have them, and 30 ns without (BenchmarkCalls): the kernel keeps a table of calls that a filter always allows.
// Nothing for each connection and byte. A supervisor has 0.8 MB of memory to itself.
//
// It is no security boundary and must not be used as one: a program can change its arguments after they were read
// (seccomp_unotify(2)). It gives a program nothing that LISTEN_FDS would not give. It is for TCP alone; UDP, unix sockets and
// ports that are not the app's are left to the kernel, as are programs that bind by io_uring, which the kernel does not ask
// about.
//
// Launch and Command start a program under a supervisor, Supervisor is that process, State is what it has seen, and
// Find reads it. All of it needs Linux 5.9 (SECCOMP_IOCTL_NOTIF_ADDFD).
package bindnotify
