// Package steer makes the kernel give each new connection to the right instance. All listeners of one public address
// form one SO_REUSEPORT group; a Group attaches a program to it which picks the member for every SYN from a ring, and
// lets its owner change that ring, move waiting connections from one listener to others, and read counters.
//
// Cost in the shim: no system call, wake-up or byte for a connection, a request or a byte. In the kernel about 60 BPF
// instructions at the SYN (least connections: 40 more for each member that is compared), nothing after it. A new ring is one atomic store to memory shared with the kernel; reading a
// counter is one load. The program and its maps live as long as any listener of the group, with or without the shim.
//
// Listener descriptors are always borrowed: nothing here closes one or changes O_NONBLOCK or another of its flags,
// which all holders of the socket share. It is not for unix sockets, which have no SO_REUSEPORT, and it keeps no
// backend states: package balance says what the ring is.
package steer
