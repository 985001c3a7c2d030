'use strict';
// No HTTP server: it answers the first bytes of each connection and closes it.
require('net').createServer((socket) => {
  socket.on('error', () => {});
  socket.once('data', () => {
    const body = `pid=${process.pid}\n`;
    socket.end(`HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: ${body.length}\r\n\r\n${body}`);
  });
}).listen(process.env.PORT);
