'use strict';
// A program that is its own cluster: it is the primary, and its workers get what comes to its listener.
const cluster = require('cluster');
if (cluster.isPrimary ?? cluster.isMaster) {
  for (let i = 0; i < 2; i++) cluster.fork();
} else {
  require('http').createServer((request, response) => response.end(`pid=${process.ppid} worker=${cluster.worker.id}\n`)).listen(process.env.PORT);
}
