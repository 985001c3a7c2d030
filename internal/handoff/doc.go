// Package handoff is the balancer's side of the handoff path: it decides which instance gets the next connection of the
// app's public listeners, and tells that instance on its channel, a private unix socket of type SOCK_SEQPACKET (package
// wire, lbshim.protocol(7)). Package activation is the other side.
//
// # Two ways
//
// A strategy that does not look at the connection orders: the instance gets a Take and accepts the connection itself, from
// its own duplicate of the public listener. Until then the connection waits in the kernel's backlog, so whoever dies or
// hangs, the balancer or the instance, takes none with it: an order that is not carried out goes to another instance.
//
// SourceHash must know who connects. The balancer accepts, and sends the descriptor in a Give. It keeps its own copy until
// the instance has answered, which the instance does before its program sees the connection; when the instance ends or
// closes first, another gets the copy. What is lost if the balancer is killed is the one connection between its accept4(2)
// and its sendmsg(2), some microseconds: after that the descriptor is in the channel, which outlives it.
//
// A Receiver, such as a program for Node.js, cannot accept: it is given its connections by a protocol of its own, whatever the
// strategy, with the same loss.
//
// # When nobody can take a connection
//
// It stays in the backlog; nothing is accepted to be dropped. An instance has at most maxPending orders, or maxGiven given
// connections (a Receiver maxUnanswered), that it has not answered. One that hangs holds up no other; only with SourceHash it
// does, when it has that many, as the next connection may be its own. Whether it hangs is for the caller to say, who takes it
// off the ring then (Stat.Waits): its orders go to others. Connections given to it are its own until it ends, as nobody can
// take a message back.
//
// # Cost
//
// An instance counts what it accepts and closes in memory that both share (package tally), so the balancer wakes once for an
// ordered connection: when it comes. That costs epoll_wait, getsockopt(TCP_INFO) and sendmsg, no descriptor, no memory, and
// 8 bytes through the channel. Only while connections wait that nobody can take do the instances tell, by message, of each
// that they accept or close. A given connection costs accept4, sendmsg with a descriptor, read of the answer, and close.
// A Receiver says several things of each connection. They are read together, before the next connection is handed out, or a
// millisecond later if none comes. BenchmarkTake and BenchmarkGive measure the ways; test/bench the CPU.
//
// It is not for TCP that can be steered (package steer costs nothing per connection), and not for programs that know
// nothing of it.
package handoff
