'use strict';
// On request it has no descriptor left for a second, or for /take?MILLISECONDS.
const fs = require('fs');
const taken = [];
require('http').createServer((request, response) => {
  const [path, time] = request.url.split('?');
  if (path === '/take') {
    try { for (;;) taken.push(fs.openSync('/dev/null')); } catch (error) { console.log('out of files:', error.code); }
    return setTimeout(() => { while (taken.length) fs.closeSync(taken.pop()); response.end('all are free again'); }, Number(time || 1000));
  }
  response.end(`pid=${process.pid}\n`);
}).listen(process.env.PORT);
