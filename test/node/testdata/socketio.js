'use strict';
const http = require('http');
const { Server } = require('socket.io');
const server = http.createServer((request, response) => response.end(`instance=${process.env.INSTANCE} pid=${process.pid}\n`));
new Server(server).on('connection', (socket) => {
  socket.on('echo', (text) => socket.emit('echo', `pid=${process.pid} ${text}`));
});
server.listen(process.env.PORT);
