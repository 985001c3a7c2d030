// A web server that speaks HTTP/2 in clear text, and knows nothing of unitgen.
'use strict';

const http2 = require('http2');

http2.createServer((request, response) => {
  const { pathname, searchParams } = new URL(request.url, 'http://localhost');
  const answer = () => response.end(`instance=${process.env.INSTANCE} pid=${process.pid}\n`);
  if (pathname === '/slow') return setTimeout(answer, Number(searchParams.get('ms')));
  answer();
}).listen(process.env.PORT);
