// A web server that knows nothing of unitgen:
//
//   unitgen web --instances 4 --listen 3000 --now -- node server.js
//
// Further arguments are ports and paths to listen on, instead of $PORT.
'use strict';

const http = require('http');

function serve(request, response) {
  const { pathname, searchParams } = new URL(request.url, 'http://localhost');
  const answer = () => response.end(
    `instance=${process.env.INSTANCE} pid=${process.pid} version=${process.env.APP_VERSION || 1} node=${process.version}\n`);
  if (pathname === '/slow') return setTimeout(answer, Number(searchParams.get('ms') || 1000));
  if (pathname === '/peer') return response.end(`${request.socket.remoteAddress}:${request.socket.remotePort}\n`);
  answer();
}

const addresses = process.argv.length > 2 ? process.argv.slice(2) : [process.env.PORT || 3000];
for (const address of addresses) {
  const server = http.createServer(serve).listen(address, () => console.log('listening on', server.address()));
  server.keepAliveTimeout = 75_000; // by default 5 s
}
