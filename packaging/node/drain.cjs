// Loaded into the Node.js programs of an app by "lbshim exec" (NODE_OPTIONS=--require). It does nothing until the app's
// balancer says that the instance drains; from then on every HTTP/1 answer says "Connection: close", so that clients
// that are never idle come back on another connection, to another instance. The program needs no code of its own.
'use strict';

// The children of the program have no balancer.
const [first, ...rest] = (process.env.NODE_OPTIONS || '').split(' ');
if (first.includes(__filename)) {
  if (rest.length > 0) process.env.NODE_OPTIONS = rest.join(' ');
  else delete process.env.NODE_OPTIONS;
}

if (process.channel) {
  const { channel } = require('diagnostics_channel');
  const started = channel('http.server.request.start'); // kept, or it would be collected with its subscriber
  const close = ({ response }) => { response.shouldKeepAlive = false; };
  let draining = false;
  process.on('internalMessage', (message) => {
    if (!message || message.cmd !== 'NODE_UNITGEN') return;
    if (message.act === 'drain' && !draining) started.subscribe(close);
    if (message.act === 'serve' && draining) started.unsubscribe(close);
    draining = message.act === 'drain';
  });
}
