'use strict';
// What programs do beside the app's port works as when they are run by hand, and stays theirs: a server on a port of the system's
// choice, on loopback alone; UDP, shared and exclusive; a unix socket; a worker thread and a child that serve; a timer's end.
const http = require('http');
const dgram = require('dgram');
const { Worker, isMainThread } = require('worker_threads');
const { fork } = require('child_process');

function serve(what, tell) {
  const server = http.createServer((request, response) => response.end(`server=${what} pid=${process.pid}\n`));
  server.listen(0, '127.0.0.1', () => tell(server.address().port));
}

if (!isMainThread) {
  serve('thread', (port) => require('worker_threads').parentPort.postMessage(port));
} else if (process.argv[2] === 'child') {
  serve('child', (port) => process.send({ port }));
} else {
  const seen = {};
  http.createServer((request, response) => response.end(`pid=${process.pid} ${JSON.stringify(seen)}\n`)).listen(process.env.PORT);
  serve('admin', (port) => { seen.admin = port; });
  new Worker(__filename).on('message', (port) => { seen.thread = port; }).on('error', (error) => { seen.thread = error.message; });
  fork(__filename, ['child']).on('message', ({ port }) => { seen.child = port; });
  for (const exclusive of [false, true]) {
    const socket = dgram.createSocket('udp4').on('error', (error) => { seen[`udp-${exclusive}`] = error.code; });
    socket.bind({ port: 0, exclusive }, () => { seen[`udp-${exclusive}`] = socket.address().port; });
  }
}
