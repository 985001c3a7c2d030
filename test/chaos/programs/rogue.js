// A web server whose instance 2 attacks the balancer over its channel and the process that answers its bind(), ten times a second: ports
// that are not the app's, messages to nobody, lines that are no message.
'use strict';

const fs = require('fs');
const http = require('http');
const net = require('net');

http.createServer((request, response) =>
  response.end(`instance=${process.env.INSTANCE} pid=${process.pid}\n`)).listen(process.env.PORT);

if (process.env.INSTANCE === '2') setInterval(attack, 100);

let round = 0;
function attack() {
  round++;
  for (let i = 0; i < 20; i++) {
    const server = net.createServer().on('error', () => {}).on('listening', () => server.close());
    server.listen(20000 + (round * 20 + i) % 1000);
  }
  for (let i = 0; i < 10 && process.send; i++) {
    process.send({ type: 'process:msg', data: 'x'.repeat(1000) }, () => {});
    process.send({ cmd: 'NODE_CLUSTER', act: 'close', key: `nothing:${i}` }, () => {});
    process.send({ cmd: 'NODE_CLUSTER', act: 'listening', port: 1, address: '::', addressType: 6 }, () => {});
    process.send({ ack: 1e9, seq: -1 }, () => {});
  }
  // Past Node's own framing, on the same descriptor.
  const fd = process.channel && process.channel._handle && process.channel._handle.fd;
  if (fd >= 0) fs.write(fd, '{]\n\u0000\n[[[[\n', () => {});
}
