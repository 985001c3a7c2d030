// Package handoff is the balancer's side of the handoff path. It decides which instance gets the
// next connection of the app's public listeners, and sends messages to that instance on its
// channel, a private unix socket of type SOCK_SEQPACKET (package wire, lbshim.protocol(7)). Package
// activation is the instance's side.
//
// # Two ways
//
// A strategy that does not look at the connection sends orders: the instance gets a Take and
// accepts the connection itself, from its duplicate of the public listener. Until then the
// connection waits in the kernel's backlog. If the balancer or the instance dies or hangs, no
// connection is lost: an order that is not carried out goes to another instance.
//
// SourceHash must know the client. The balancer accepts the connection and sends the descriptor in
// a Give. It keeps a copy until the instance has answered, which the instance does before its
// program sees the connection. If the instance ends or closes first, another instance gets the
// copy. A balancer that is killed loses at most one connection, between its accept4(2) and its
// sendmsg(2), some microseconds. After that the descriptor is in the channel, which outlives the
// balancer.
//
// A Receiver, such as a program for Node.js, cannot accept. It gets connections by its protocol
// with every strategy, with the same possible loss.
//
// # When no instance can take a connection
//
// The connection stays in the backlog; the balancer accepts nothing to drop it. An instance has at
// most maxPending unanswered orders, or maxGiven unanswered connections (a Receiver maxUnanswered).
// An instance that hangs does not delay others, except with SourceHash when it has that many, as
// the next connection may belong to it. The caller decides whether an instance hangs, and takes it
// off the ring (Stat.Waits). Its orders then go to others. Connections given to it stay with it
// until it ends, as a message cannot be taken back.
//
// # Cost
//
// An instance counts the connections that it accepts and closes in shared memory (package tally),
// so the balancer wakes up once for an ordered connection: when it arrives. That costs epoll_wait,
// getsockopt(TCP_INFO) and sendmsg, no descriptor, no memory, and 8 bytes through the channel.
// Instances send a message for each accepted or closed connection only while connections wait that
// no instance can take. A given connection costs accept4, sendmsg with a descriptor, read of the
// answer, and close. A Receiver sends several messages for each connection. The loop reads them
// together, before it hands out the next connection, or a millisecond later if none comes.
// BenchmarkTake and BenchmarkGive measure both ways; test/bench measures the CPU.
//
// This package is not for TCP that can be steered (package steer costs nothing per connection), and
// not for programs without support for the handoff path.
package handoff
