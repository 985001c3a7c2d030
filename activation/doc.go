/*
Package activation is the service's side of systemd: it takes the sockets that PID 1 holds for the program, reports the
program's state to PID 1, and ends an HTTP server without losing a request. Linux only.

	func main() {
		ctx, stop := activation.StopSignal(context.Background())
		defer stop()
		passed, err := activation.Inherit()
		…
		listeners, err := passed.Listeners("app.socket")
		…
		notifier, err := activation.NewNotifier()
		…
		defer notifier.Close()
		err = activation.Serve(ctx, &http.Server{Handler: app}, listeners, activation.ServeOptions{Notifier: notifier})
		…
	}

# Sockets

A socket unit makes PID 1 open and bind the sockets. It passes them to the service as descriptors 3, 4 and so on.
LISTEN_FDS is their number. LISTEN_PID is the process that they are for, and so is LISTEN_PIDFDID (since systemd 259, safe
against reuse of PIDs). LISTEN_FDNAMES has their names, separated by colons. PID 1 keeps the sockets as well: connections
queue while the service starts, restarts or crashes. Descriptors that the service gave to PID 1 to keep
([Notifier.StoreFiles]) come back in the same list. See sd_listen_fds(3).

[Inherit] reads the four variables strictly, takes them out of the environment, and returns [Descriptors]. A name that
was not passed, a count that does not match, a datagram socket instead of a listener: all are errors, never a nil in a
list.

# Who closes what

[Descriptors] owns the descriptors that nobody has taken. Taking moves ownership to the caller: as net.Listener, net.PacketConn,
net.Conn, *os.File or as plain number. A plain number stays open until it is closed, there is no finalizer. Closing a passed
socket is harmless: PID 1's copy stays. Shutdown(2) and removing the path of a unix socket are not harmless: they
affect PID 1's copy too. This package does neither.

O_NONBLOCK lives in the open file description, which all holders of a socket share. Package net sets it. Set
NonBlocking=yes in the service, or take the plain number with [Descriptor.Take], which changes nothing.

# Connections that are handed over

On a seqpacket listener of the name [HandoffName] a balancer sends the connections of the public listeners that are for this
process. Taken as a listener it yields these connections, with the clients' addresses, so a program that takes
[Descriptors.AllListeners] runs with and without a balancer. Each is a net.Conn with CloseRead, CloseWrite and SyscallConn,
but not a *net.TCPConn. Set other options in the socket unit (NoDelay=, KeepAlive=): connections inherit them from their
listener. When the listener is closed, connections that were not accepted go to other instances. The process needs no network
(PrivateNetwork=yes).

# Notifications

NOTIFY_SOCKET names a datagram socket of the manager. A message is a few lines KEY=VALUE: READY=1 when start-up is
done (Type=notify), RELOADING=1, STOPPING=1, STATUS= for "systemctl status", WATCHDOG=1 to stay alive under
WatchdogSec=, FDSTORE=1 with descriptors attached. [Notifier] has a method for each, and does nothing without a
manager. See sd_notify(3).

# The end

[Serve] serves until its context ends and then lets clients go in the order that loses nothing; its comment has the
steps. It is for net/http; a server of another protocol can do the same with the Notifier.

# Messages

[OpenMessages] connects the process with the other instances of its app, where the app has --messages: they send each other
values of JSON, and "unitgen send" sends them from outside.

# What it is not for

It opens no sockets, starts no processes, asks PID 1 nothing (there is no D-Bus here), and logs nothing but through
the ErrorLog of the server given to Serve. It needs nothing of unitgen's but, for connections that are handed over and for messages, a
balancer that speaks lbshim.protocol(7).
*/
package activation
