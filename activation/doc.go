/*
Package activation is the service's side of systemd: it takes the sockets that PID 1 holds for the program, tells PID
1 how the program fares, and ends an HTTP server without losing a request. Linux only.

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

A socket unit makes PID 1 open and bind the sockets. It passes them to the service as descriptors 3, 4 and so on, and
says how many in LISTEN_FDS, for whom in LISTEN_PID and (since systemd 259, proof against reuse of PIDs)
LISTEN_PIDFDID, and what they are called in LISTEN_FDNAMES, separated by colons. PID 1 keeps them as well: connections
queue while the service starts, restarts or crashes. Descriptors that the service gave to PID 1 to keep
([Notifier.StoreFiles]) come back in the same list. See sd_listen_fds(3).

[Inherit] reads the four variables strictly, takes them out of the environment, and returns [Descriptors]. A name that
nobody passed, a count that does not match, a datagram socket where a listener is asked for: all are errors, never a
nil in a list.

# Who closes what

[Descriptors] owns what nobody has taken. Taking moves ownership to the caller: as net.Listener, net.PacketConn,
net.Conn, *os.File or as plain number. A number stays open until it is closed, there is no finalizer. Closing a passed
socket is harmless: PID 1's copy stays. Shutdown(2), and removing the path of a unix socket, are not: they hit PID 1's
copy too, and nothing here does them.

O_NONBLOCK lives in the open file description, which all holders of a socket share. Package net sets it. Set
NonBlocking=yes in the service, or take the plain number with [Descriptor.Take], which changes nothing.

# Connections that are handed over

A seqpacket listener of the name [HandoffName] is not one of the program's own: a balancer says on it which connections of the
public listeners are this process's. Taken as a listener it yields those, with the clients' addresses, so a program that takes
[Descriptors.AllListeners] runs with and without a balancer. What it yields is a net.Conn with CloseRead, CloseWrite and
SyscallConn, but no *net.TCPConn; what else a socket can be told stands in the socket unit (NoDelay=, KeepAlive=), whose
connections have it from their listener. Closing the listener sends what was not accepted to other instances. The process
needs no network of its own (PrivateNetwork=yes).

# Notifications

NOTIFY_SOCKET names a datagram socket of the manager. A message is a few lines KEY=VALUE: READY=1 when start-up is
done (Type=notify), RELOADING=1, STOPPING=1, STATUS= for "systemctl status", WATCHDOG=1 to stay alive under
WatchdogSec=, FDSTORE=1 with descriptors attached. [Notifier] has a method for each, and does nothing where there is
no manager. See sd_notify(3).

# The end

[Serve] serves until its context ends and then lets clients go in the order that loses nothing; its comment has the
steps. It is for net/http; a server of another protocol does the same with the Notifier in its own way.

# Messages

[OpenMessages] connects the process with the other instances of its app, where the app has --messages: they send each other
values of JSON, and "unitgen send" sends them from outside.

# What it is not for

It opens no sockets, starts no processes, asks PID 1 nothing (there is no D-Bus here), and logs nothing but through
the ErrorLog of the server given to Serve. It needs nothing of unitgen's but, for connections that are handed over and for messages, a
balancer that speaks lbshim.protocol(7).
*/
package activation
