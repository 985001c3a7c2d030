'use strict';
const http = require('http');
http.createServer((request, response) => {
  const answer = () => response.end(`instance=${process.env.INSTANCE} pid=${process.pid} version=${process.env.APP_VERSION}\n`);
  const slow = /^\/slow\?(\d+)$/.exec(request.url);
  if (!slow) return answer();
  response.writeContinue(); // the client knows that it is being worked on
  setTimeout(answer, Number(slow[1]));
}).listen(Number(process.argv[2] || 3000));
