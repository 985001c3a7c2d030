'use strict';
// Two servers, and a third that nobody has opened a port for: its error must not end the others.
const http = require('http');
const name = (what) => (request, response) => response.end(`server=${what} instance=${process.env.INSTANCE} pid=${process.pid}\n`);
const [first, second] = process.argv.slice(2).map(Number);
http.createServer(name('first')).listen(first);
http.createServer(name('second')).listen(second);
http.createServer(name('third')).listen(1).on('error', (error) => console.log('third server:', error.code));
