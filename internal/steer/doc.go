// Package steer makes the kernel give each new connection to the right instance. All listeners of
// one public address form one SO_REUSEPORT group. A Group attaches a program to it that picks the
// member for every SYN from a ring. Its owner can change the ring, move waiting connections from
// one listener to others, and read counters.
//
// Cost in the shim: no system call, wake-up or byte for a connection, a request or a byte. In the
// kernel about 60 BPF instructions at the SYN (source-hash 30 more, random-two 80, least
// connections 40 for each member that is compared), and nothing after it: 150 ns for round robin,
// 190 for source-hash, 300 for random-two, 260 for least connections of four members
// (BenchmarkPrograms, a loaded virtual machine). A new ring is one atomic store to memory shared
// with the kernel; reading a counter is one load, and reading where connections have moved 4096 (32
// kB of the map). The program and its maps live as long as any listener of the group, with or
// without the shim. A check of the members (Guard, Snapshot.Resume) costs two or three microseconds
// for each listener.
//
// Listener descriptors are always borrowed: this package never closes one or changes O_NONBLOCK or
// another of its flags, which all holders of the socket share. The package is not for unix sockets,
// which have no SO_REUSEPORT. It keeps no backend states: package balance decides the ring.
//
// # What a member can do
//
// An instance has one member of the group, its own listener, and the kernel lets it do this without
// privilege:
//
//   - It cannot replace the steering program, or set a socket filter on its listener: the listener
//     is locked for good when it joins, before the instance starts (SO_LOCK_FILTER). Its process has
//     no other listener, and only PID 1 and the shim have the parking listener, through which the
//     program is attached.
//   - It can take the steering program off (SO_DETACH_REUSEPORT_BPF; the kernel ignores the lock).
//     The shim checks every 200 ms while the app is in use, and every second otherwise. Until the
//     next check the kernel spreads new connections by hash over all members, including drained
//     ones and the parking listener, whose queue is moved to instances afterwards. Then the program
//     is attached again, with the same ring and counters. It is also attached before a queue is
//     moved. An instance that detaches in a loop keeps the spread uneven; it cannot direct
//     connections to itself, or get more than the hash gives it. A seccomp filter on the numbers of
//     the system call stops it.
//   - It can shut its listener down, connect it, or clear its SO_REUSEPORT: the waiting connections
//     move to others, and the next check restores the listener. The same holds for a lowered
//     backlog.
//   - It can change options of its listener. They affect its own connections until its program
//     ends; then they are restored. Three cannot be restored without privilege (see Snapshot), and
//     stay until its socket unit is restarted.
//   - It cannot bind another socket into the group: the kernel compares the user who created the
//     sockets, which is root.
//   - It can leave connections unaccepted, which package shim finds, or answer them wrongly, which
//     nobody notices.
package steer
