// Loaded into the Node.js programs of an app by "lbshim exec" (NODE_OPTIONS=--require). The program needs no code of its own.
//
// While its instance drains every HTTP/1 answer says "Connection: close" and every HTTP/2 session is told GOAWAY, so that
// clients that are never idle come back on another connection, to another instance. At the end the connections that are left
// close one after another, so that their clients do not all come back at once. And the balancer hears what only the process can
// know: how many requests of HTTP/1 and streams of HTTP/2 are under way, and of the connections that it was given, how many
// are open and how many are in the middle of something. And TLS servers of all instances get the same keys of session tickets.
//
// It costs one look at a field for each request of HTTP/1, two calls for each stream of HTTP/2, and where connections are given
// one call for each write to a socket.
'use strict';

// The children of the program have no balancer.
const ours = [`--require=${__filename}`, `--allow-fs-read=${__filename}`];
const rest = (process.env.NODE_OPTIONS || '').split(' ').filter((word) => word && !ours.includes(word));
if (rest.length > 0) process.env.NODE_OPTIONS = rest.join(' ');
else delete process.env.NODE_OPTIONS;

// For how long nothing may have moved on a connection that is idle, unless it is one of HTTP, in milliseconds.
const QUIET = 1000;

// How long a client of HTTP/2 may take to make its next request before it is sent away, in milliseconds.
const AWAY = 1000;

// Of a socket, and of the one below TLS: the socket that has asked by HTTP/1, or what is known of its session of HTTP/2.
const known = Symbol('unitgen');

if (process.channel) attend(require('diagnostics_channel'), require('net'));

function attend({ channel }, { Server, Socket }) {
  const given = new Map(); // the connections that the balancer has given, by their handles
  const sockets = new Set(); // those of HTTP/1 that have asked once
  const sessions = new Set(); // of HTTP/2
  const servers = new Map(); // of TLS: their own keys of session tickets
  let keys = null; // those of all instances
  let draining = false;
  let token = 0; // of the balancer's latest question
  let due = false; // a report is

  // At each request there is time for a look at one field. Whether it is answered the socket itself knows (answering).
  const started = channel('http.server.request.start'); // kept, or it would be collected with its subscriber
  started.subscribe(({ response, socket }) => {
    if (draining) response.shouldKeepAlive = false;
    if (socket[known]) return;
    mark(socket, socket);
    sockets.add(socket);
    socket.once('close', () => sockets.delete(socket));
    const connection = find(given, socket);
    if (connection) connection.socket = socket;
  });

  // Every server listens, of whichever protocol; the module of HTTP/2 need not be loaded for that.
  const { listen } = Server.prototype;
  Server.prototype.listen = function (...args) {
    if (this.getTicketKeys && !servers.has(this)) {
      servers.set(this, this.getTicketKeys());
      this.once('close', () => servers.delete(this));
      if (keys) share(this);
    }
    if (!this[known]) {
      this[known] = true;
      this.on('session', begin);
      this.on('secureConnection', (socket) => {
        const connection = find(given, socket);
        if (connection) connection.top = socket._handle;
      });
    }
    return listen.apply(this, args);
  };

  // Before the cluster module, which closes a connection that it refuses.
  process.prependListener('internalMessage', (message, handle) => {
    if (!message) return;
    if (message.cmd === 'NODE_CLUSTER' && message.act === 'newconn' && handle) watch(handle);
    if (message.cmd !== 'NODE_UNITGEN') return;
    if (message.act === 'drain') letGo();
    if (message.act === 'serve') draining = false;
    if (message.act === 'close') afterReading(() => closeWithin(message.milliseconds, message.busy));
    if (message.act === 'tickets') {
      keys = Buffer.from(message.keys, 'hex');
      for (const server of servers.keys()) share(server);
    }
    if (message.act === 'report') {
      token = message.token;
      report();
    }
  });

  // share has a client resume its TLS session with any instance, as the cluster module does, unless the program has set keys
  // since its server listens.
  function share(server) {
    if (server.getTicketKeys().equals(servers.get(server))) server.setTicketKeys(keys);
  }

  function letGo() {
    draining = true;
    for (const { _httpMessage: response } of sockets) {
      if (response && !response.headersSent) response.shouldKeepAlive = false;
    }
    for (const tracked of sessions) leave(tracked);
  }

  // leave sends a client of HTTP/2 away with the answer to its next request, or when it has made none for a while. After GOAWAY a
  // session takes no request any more, and one that is on its way is refused.
  function leave(tracked) {
    if (tracked.streams > 0) return sendAway(tracked);
    const next = () => {
      clearTimeout(limit);
      if (draining) sendAway(tracked);
    };
    const limit = setTimeout(() => afterReading(next), AWAY).unref();
    tracked.session.once('stream', next);
  }

  // begin counts the streams of a session.
  function begin(session) {
    const tracked = { session, streams: 0, away: false };
    sessions.add(tracked);
    session.once('close', () => sessions.delete(tracked));
    session.on('stream', (stream) => {
      tracked.streams++;
      stream.once('close', () => {
        tracked.streams--;
        if (tracked.away && tracked.streams === 0) closeUnused(tracked);
      });
    });
    mark(session.socket, tracked);
    const connection = find(given, session.socket);
    if (connection) connection.session = tracked;
    if (draining) leave(tracked);
  }

  // A handle is closed once, by whoever wraps it: net, TLS, the cluster module that refuses it.
  function watch(handle) {
    if (given.size === 0) hearWrites();
    const connection = { socket: null, session: null, top: handle, answered: 0, moved: Date.now(), read: 0, written: 0 };
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

  // hearWrites has each connection remember how much was read when the program wrote last. The kernel tells the balancer which
  // side has spoken last on connections that the program accepts, but not on those that it is given.
  let hearing = false;
  function hearWrites() {
    if (hearing) return;
    hearing = true;
    for (const name of ['_write', '_writev']) {
      const write = Socket.prototype[name];
      Socket.prototype[name] = function (data, encoding, done) {
        const connection = find(given, this);
        if (connection) connection.answered = this._handle.bytesRead;
        return write.call(this, data, encoding, done);
      };
    }
  }

  // Closes the connections of HTTP servers on which no request waits for its answer. Those of other protocols, such as WebSockets,
  // close one after another; those on which something comes in meanwhile only if busy is set. A program that handles SIGTERM,
  // which comes next, does that by itself.
  function closeWithin(milliseconds, busy) {
    if (stops() || !draining) return;
    const upgraded = [];
    for (const handle of process._getActiveHandles()) {
      if (!(handle instanceof Socket && handle.server && 'headersTimeout' in handle.server)) continue;
      const owner = handle[known];
      if (owner && owner.session) continue; // it was told GOAWAY
      const socket = owner || handle;
      if (!socket.parser) upgraded.push(socket);
      else if (!answering(socket)) socket.end();
    }
    for (const [i, socket] of upgraded.entries()) {
      const read = socket.bytesRead;
      setTimeout(() => afterReading(() => {
        if (draining && (busy || socket.bytesRead === read)) socket.end();
      }), milliseconds * i / upgraded.length).unref();
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
      for (const { streams } of sessions) busy += streams;
    }
    process.send({ cmd: 'NODE_UNITGEN', act: 'report', token, open: given.size, busy, stops: stops() || undefined });
  }
}

// stops says whether the program handles the stop signal.
function stops() {
  return process.listenerCount('SIGTERM') > 0;
}

// mark remembers on a socket, and on the one below TLS, to whom it belongs: a session or a socket.
function mark(socket, owner) {
  socket[known] = owner;
  if (socket._parent) socket._parent[known] = owner;
}

// find returns the connection of a socket, which for TLS is another that stands on it.
function find(given, { _handle: handle }) {
  return handle && (given.get(handle) || given.get(handle._parent));
}

// answering says whether a request of HTTP/1 is under way on a socket.
function answering(socket) {
  return Boolean(socket._httpMessage);
}

// sendAway tells a client of HTTP/2 to send its next requests elsewhere. GOAWAY says which streams are the last to be answered, and
// a client may repeat others. Node cannot announce GOAWAY before (RFC 9113 section 6.8): whatever the frame says, nghttp2 ignores
// all streams that come after it.
function sendAway(tracked) {
  const { session } = tracked;
  if (tracked.away || session.closed || session.destroyed) return;
  tracked.away = true;
  if (tracked.streams > 0) session.goaway();
  else closeUnused(tracked);
}

// closeUnused closes a session when the end of its last stream is written. Node 18 ends the connection of a session that is
// closed earlier while it is still writing, and loses the ends of answers (nodejs/node#42713).
function closeUnused(tracked) {
  setImmediate(() => {
    if (tracked.streams === 0) tracked.session.close();
  });
}

// afterReading runs f when all that has come until now has been read. A process that was held up runs its timers, and may get the
// balancer's messages, before it reads the requests that came meanwhile.
function afterReading(f) {
  setImmediate(() => setImmediate(f)); // between the two the loop reads
}

// isBusy knows requests of HTTP. A connection of another protocol is busy while something moves, and while the program has not
// answered: the client has spoken last.
function isBusy(handle, connection) {
  if (connection.session) return connection.session.streams > 0;
  const unanswered = connection.top.bytesRead > connection.answered;
  if (connection.socket && connection.socket.parser) return unanswered || answering(connection.socket);
  if (handle.bytesRead !== connection.read || handle.bytesWritten !== connection.written) {
    connection.read = handle.bytesRead;
    connection.written = handle.bytesWritten;
    connection.moved = Date.now();
  }
  return unanswered || Date.now() - connection.moved < QUIET;
}
