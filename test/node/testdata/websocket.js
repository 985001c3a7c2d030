'use strict';
const http = require('http');
const { WebSocketServer } = require('ws');
const server = http.createServer((request, response) => response.end(`pid=${process.pid}\n`));
new WebSocketServer({ server }).on('connection', (socket) => {
  socket.on('error', () => {});
  socket.on('message', (text) => socket.send(`pid=${process.pid} ${text}`));
});
server.listen(process.env.PORT);
