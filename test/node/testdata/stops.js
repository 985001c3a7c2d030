'use strict';
// A program that counts its requests and, told to stop by a signal, closes its server, saves the count and ends.
const fs = require('fs');
let count = 0;
const server = require('http').createServer((request, response) => {
  count++;
  response.end(`pid=${process.pid}\n`);
});
server.listen(process.env.PORT);
process.on('SIGTERM', () => server.close((error) => {
  fs.writeFileSync(`${process.env.STATE_DIRECTORY}/${process.pid}`, `${error || count}\n`);
}));
