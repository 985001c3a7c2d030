'use strict';
// On request it has no descriptor left for a second.
const fs = require('fs');
const taken = [];
require('http').createServer((request, response) => {
  if (request.url === '/take') {
    try { for (;;) taken.push(fs.openSync('/dev/null')); } catch (error) { console.log('out of files:', error.code); }
    return setTimeout(() => { while (taken.length) fs.closeSync(taken.pop()); response.end('all are free again'); }, 1000);
  }
  response.end(`pid=${process.pid}\n`);
}).listen(process.env.PORT);
