'use strict';
// Takes its time for an answer, by the protocol that the first argument names.
const [, , protocol, wait] = process.argv;
const text = `pid=${process.pid}\n`;
const handle = (request, response) => setTimeout(() => response.end(text), request.url === '/late' ? wait : 0);
const tls = () => ({ key: require('fs').readFileSync('/srv/key.pem'), cert: require('fs').readFileSync('/srv/cert.pem') });
const make = {
  h2c: () => require('http2').createServer(handle),
  h2: () => require('http2').createSecureServer(tls(), handle),
  ws: () => {
    const server = require('http').createServer(handle);
    new (require('ws').WebSocketServer)({ server }).on('connection', (ws) => ws.on('message', () => setTimeout(() => ws.send(text), wait)));
    return server;
  },
  net: () => require('net').createServer((socket) => socket.on('data', () => setTimeout(() => socket.end(text), wait)).on('error', () => {})),
};
make[protocol]().listen(process.env.PORT);
