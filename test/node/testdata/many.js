'use strict';
// One server on a port of its own choice, which is the app's; one on port 0, which is the app's other one. UDP is the
// program's own affair: shared it is refused, and exclusive it works. So is a unix socket.
const http = require('http');
const dgram = require('dgram');
const seen = [];
const name = (what) => (request, response) => response.end(`server=${what} pid=${process.pid} ${seen.sort()}\n`);
http.createServer(name('first')).listen(process.env.PORT, () => {
  const any = http.createServer(name('any')).listen(0, () => seen.push(`port=${any.address().port}`));
});
dgram.createSocket('udp4').on('error', (error) => seen.push(`udp=${error.code}`)).bind(0);
const own = dgram.createSocket('udp4').bind({ port: 0, exclusive: true }, () => {
  own.unref();
  seen.push('own-udp');
});
