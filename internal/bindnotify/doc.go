// Package bindnotify answers a program's bind(2) and listen(2) with listeners that PID 1 has
// opened, so that a program without support for LISTEN_FDS serves on them unchanged. A seccomp
// filter makes the kernel ask a supervisor, a small process of the same unit and user, at each
// bind(2) and listen(2) of the program and its children. The supervisor replaces the program's
// descriptor by a duplicate of the instance's listener, or lets the kernel continue.
//
// Cost: 0.09 ms for each bind and 0.025 ms for each listen. Every other system call costs 1 ns or
// less in a unit that has another filter, and 30 ns without (BenchmarkCalls): the kernel keeps a
// table of calls that a filter always allows. Connections and bytes cost nothing. A supervisor uses
// 0.8 MB of private memory.
//
// The package is no security boundary and must not be used as one: a program can change its
// arguments after they were read (seccomp_unotify(2)). A program gets nothing that LISTEN_FDS would
// not give. The package is for TCP only. The kernel handles UDP, unix sockets, ports that are not
// the app's, and programs that bind by io_uring, for which it does not ask the supervisor.
//
// Launch and Command start a program under a supervisor, Supervisor is that process, State is its
// report, and Find reads the report. All of it needs Linux 5.9 (SECCOMP_IOCTL_NOTIF_ADDFD).
package bindnotify
