// Loaded into the Node.js programs of an app by "lbshim exec" (NODE_OPTIONS=--require). The program needs no code of its own.
//
// While its instance drains every HTTP/1 answer says "Connection: close", so that clients that are never idle come back on
// another connection, to another instance; at the end the connections that are left close one after another, so that their
// clients do not all come back at once. And the balancer hears what only the process can know: how many of the
// connections that it was given are open, and how many are in the middle of something.
'use strict';

// The children of the program have no balancer.
const ours = [`--require=${__filename}`, `--allow-fs-read=${__filename}`];
const rest = (process.env.NODE_OPTIONS || '').split(' ').filter((word) => word && !ours.includes(word));
if (rest.length > 0) process.env.NODE_OPTIONS = rest.join(' ');
else delete process.env.NODE_OPTIONS;

// How long nothing may have moved on a connection of another protocol than HTTP/1 for it to be idle, in milliseconds.
const QUIET = 1000;

if (process.channel) attend(require('diagnostics_channel'), require('net'));

function attend({ channel }, { Socket }) {
  const given = new Map(); // the connections that the balancer has given, by their handles
  const sockets = new Set(); // those of HTTP/1 that have asked once
  let draining = false;
  let token = 0; // of the balancer's latest question
  let due = false; // a report is

  // At each request there is time for a look at one field. Whether it is answered the socket itself knows (answering).
  const known = Symbol('unitgen'); // of a socket, and of the one below TLS: the socket that has asked
  const started = channel('http.server.request.start'); // kept, or it would be collected with its subscriber
  started.subscribe(({ response, socket }) => {
    if (draining) response.shouldKeepAlive = false;
    if (socket[known]) return;
    socket[known] = (socket._parent || socket)[known] = socket;
    sockets.add(socket);
    socket.once('close', () => sockets.delete(socket));
    const connection = find(given, socket);
    if (connection) connection.socket = socket;
  });

  // Before the cluster module, which closes a connection that it refuses.
  process.prependListener('internalMessage', (message, handle) => {
    if (!message) return;
    if (message.cmd === 'NODE_CLUSTER' && message.act === 'newconn' && handle) watch(handle);
    if (message.cmd !== 'NODE_UNITGEN') return;
    if (message.act === 'drain') draining = true;
    if (message.act === 'serve') draining = false;
    if (message.act === 'close') closeWithin(message.milliseconds);
    if (message.act === 'report') {
      token = message.token;
      report();
    }
  });

  // A handle is closed once, by whoever wraps it: net, TLS, the cluster module that refuses it.
  function watch(handle) {
    const connection = { socket: null, moved: Date.now(), read: 0, written: 0 };
    const close = handle.close;
    given.set(handle, connection);
    handle.close = function (...args) {
      handle.close = close;
      given.delete(handle);
      if (!due && process.connected) {
        due = true;
        setImmediate(report).unref();
      }
      return close.apply(handle, args);
    };
  }

  // Closes the connections of HTTP servers on which no request waits for its answer, such as WebSockets, one after another. A
  // program that handles SIGTERM, which comes next, does that by itself.
  function closeWithin(milliseconds) {
    if (process.listenerCount('SIGTERM') > 0) return;
    const open = process._getActiveHandles().filter(
      (handle) => handle instanceof Socket && handle.server && 'headersTimeout' in handle.server);
    for (const [i, handle] of open.entries()) {
      setTimeout(() => {
        const socket = handle[known] || handle;
        if (draining && !answering(socket)) socket.end();
      }, milliseconds * i / open.length).unref();
    }
  }

  // All that is due goes into one message.
  function report() {
    due = false;
    if (!process.connected) return;
    let busy = 0;
    if (given.size > 0) {
      for (const [handle, connection] of given) if (isBusy(handle, connection)) busy++;
    } else {
      for (const socket of sockets) if (answering(socket)) busy++;
    }
    process.send({ cmd: 'NODE_UNITGEN', act: 'report', token, open: given.size, busy });
  }
}

// find returns the connection of a socket, which for TLS is another that stands on it.
function find(given, { _handle: handle }) {
  return handle && (given.get(handle) || given.get(handle._parent));
}

// answering says whether a request of HTTP/1 is under way on a socket.
function answering(socket) {
  return Boolean(socket._httpMessage);
}

// isBusy knows requests of HTTP/1. What moves on a connection of another protocol keeps it busy.
function isBusy(handle, connection) {
  if (connection.socket) return answering(connection.socket);
  if (handle.bytesRead !== connection.read || handle.bytesWritten !== connection.written) {
    connection.read = handle.bytesRead;
    connection.written = handle.bytesWritten;
    connection.moved = Date.now();
  }
  return Date.now() - connection.moved < QUIET;
}
