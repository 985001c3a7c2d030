// Loaded into the Node.js programs of an app by "lbshim exec" (NODE_OPTIONS=--require). The program needs no code of its own.
//
// While its instance drains every HTTP/1 answer says "Connection: close", so that clients that are never idle come back on
// another connection, to another instance; at the end the connections that are left close one after another, so that their
// clients do not all come back at once. And the balancer hears what only the process can know: how many of the
// connections that it was given are open, and how many are in the middle of something.
'use strict';

// The children of the program have no balancer.
const [first, ...rest] = (process.env.NODE_OPTIONS || '').split(' ');
if (first.includes(__filename)) {
  if (rest.length > 0) process.env.NODE_OPTIONS = rest.join(' ');
  else delete process.env.NODE_OPTIONS;
}

// How long nothing may have moved on a connection of another protocol than HTTP/1 for it to be idle, in milliseconds.
const QUIET = 1000;

if (process.channel) attend(require('diagnostics_channel'), require('net'));

function attend({ channel }, { Socket }) {
  const given = new Map(); // the connections that the balancer has given, by their handles
  const working = new Map(); // sockets with HTTP/1 requests that are not answered yet, and how many
  let requests = 0; // of all of them
  let draining = false;
  let token = 0; // of the balancer's latest question
  let due = false; // a report is
  const started = channel('http.server.request.start'); // kept, or it would be collected with its subscriber

  started.subscribe(({ request, response }) => {
    if (draining) response.shouldKeepAlive = false;
    const connection = find(given, request.socket);
    const socket = request.socket._parent || request.socket; // that of TCP, below TLS
    working.set(socket, (working.get(socket) || 0) + 1);
    requests++;
    if (connection) {
      connection.http = true;
      connection.requests++;
    }
    response.once('close', () => {
      requests--;
      const left = working.get(socket) - 1;
      if (left > 0) working.set(socket, left);
      else working.delete(socket);
      if (connection) connection.requests--;
    });
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
    const connection = { requests: 0, http: false, moved: Date.now(), read: 0, written: 0 };
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
    const sockets = process._getActiveHandles().filter(
      (handle) => handle instanceof Socket && handle.server && 'headersTimeout' in handle.server);
    for (const [i, socket] of sockets.entries()) {
      setTimeout(() => {
        if (draining && !working.has(socket)) socket.end();
      }, milliseconds * i / sockets.length).unref();
    }
  }

  // All that is due goes into one message.
  function report() {
    due = false;
    if (!process.connected) return;
    let busy = requests;
    if (given.size > 0) {
      busy = 0;
      for (const [handle, connection] of given) if (isBusy(handle, connection)) busy++;
    }
    process.send({ cmd: 'NODE_UNITGEN', act: 'report', token, open: given.size, busy });
  }
}

// find returns the connection of a socket, which for TLS is another that stands on it.
function find(given, { _handle: handle }) {
  return handle && (given.get(handle) || given.get(handle._parent));
}

// isBusy knows requests of HTTP/1. What moves on a connection of another protocol keeps it busy.
function isBusy(handle, connection) {
  if (connection.http) return connection.requests > 0;
  if (handle.bytesRead !== connection.read || handle.bytesWritten !== connection.written) {
    connection.read = handle.bytesRead;
    connection.written = handle.bytesWritten;
    connection.moved = Date.now();
  }
  return Date.now() - connection.moved < QUIET;
}
