// Package steer makes the kernel give each new connection to the right instance. All listeners of one public address
// form one SO_REUSEPORT group; a Group attaches a program to it which picks the member for every SYN from a ring, and
// lets its owner change that ring, move waiting connections from one listener to others, and read counters.
//
// Cost in the shim: no system call, wake-up or byte for a connection, a request or a byte. In the kernel about 60 BPF
// instructions at the SYN (source-hash 30 more, random-two 80, least connections 40 for each member that is compared), nothing
// after it: 150 ns for round robin, 190 for source-hash, 300 for random-two, 260 for least connections of four members
// (BenchmarkPrograms, a loaded virtual machine). A new ring is one atomic store to memory shared with the kernel; reading a counter is one load. The program and its maps live as long
// as any listener of the group, with or without the shim. A look at what members did (Guard, Snapshot.Resume) costs two
// or three microseconds for each listener.
//
// Listener descriptors are always borrowed: nothing here closes one or changes O_NONBLOCK or another of its flags,
// which all holders of the socket share. It is not for unix sockets, which have no SO_REUSEPORT, and it keeps no
// backend states: package balance says what the ring is.
//
// # What a member can do
//
// An instance has one member of the group, its own listener, and the kernel lets it do this without privilege:
//
//   - It cannot put a program of its own in place of the steering program, nor a socket filter on its listener: its
//     listener is locked for good when it joins, before the instance starts (SO_LOCK_FILTER). Nobody else's listener is in
//     its process, and the parking listener, by which the program is attached, is in none but PID 1's and the shim's.
//   - It can take the steering program off (SO_DETACH_REUSEPORT_BPF; the kernel does not ask the lock). Until the next look,
//     which is due every 200 ms while the app is in use, and every second else, the kernel spreads new connections by hash
//     over all members: drained ones, and the parking listener, whose queue is moved to instances afterwards. Then the
//     program is attached again, with the same ring and counters. Before a queue is moved the program is attached in any case. An
//     instance that does so without end keeps the spread uneven; it cannot direct connections to itself, nor get more of
//     them than the hash gives it. A seccomp filter on the system call's numbers stops it.
//   - It can shut its listener down, connect it, or take its SO_REUSEPORT: what waits there moves to others, and the next
//     look puts the listener back. It can lower its backlog: likewise.
//   - It can change options of its listener. They count for its own connections, until its program ends; then they are put back.
//     Three cannot be put back without privilege (see Snapshot), and stay until its socket unit is restarted.
//   - It cannot bind a further socket into the group: the kernel compares the user who made the sockets, which is root.
//   - It can leave connections unaccepted, which package shim finds, or answer them wrongly, which nobody sees.
package steer
