'use strict';
// A program that is its own cluster elsewhere. Here it finds itself to be a worker already.
const cluster = require('cluster');
if (cluster.isPrimary ?? cluster.isMaster) {
  for (let i = 0; i < 4; i++) cluster.fork();
} else {
  require('http').createServer((request, response) => response.end(`pid=${process.pid} worker=${cluster.worker.id}\n`)).listen(process.env.PORT);
}
