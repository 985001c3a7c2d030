// A web server that knows nothing of unitgen:
//
//   unitgen web --instances 4 --listen 3000 --now -- node server.js
'use strict';

const http = require('http');

const server = http.createServer((request, response) => {
  const { pathname, searchParams } = new URL(request.url, 'http://localhost');
  const answer = () => response.end(
    `instance=${process.env.INSTANCE} pid=${process.pid} version=${process.env.APP_VERSION || 1} node=${process.version}\n`);
  if (pathname === '/slow') return setTimeout(answer, Number(searchParams.get('ms') || 1000));
  answer();
});

server.listen(process.env.PORT || 3000, () => console.log('listening on', server.address()));
