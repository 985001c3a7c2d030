'use strict';
const http = require('http');
http.createServer((request, response) => {
  const answer = () => response.end(`instance=${process.env.INSTANCE} pid=${process.pid} version=${process.env.APP_VERSION}\n`);
  const slow = /^\/slow\?(\d+)$/.exec(request.url);
  if (!slow) return answer();
  // The client knows that it is being worked on; and for the kernel, in a later tick than the request, it is answered.
  setTimeout(() => response.writeContinue(), 50);
  setTimeout(answer, Number(slow[1]));
}).listen(Number(process.argv[2] || 3000));
