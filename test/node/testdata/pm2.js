'use strict';
// A program made for PM2: it says when it is ready, takes messages, and ends when it is told "shutdown".
const http = require('http');
const heard = [];
const bursts = {}; // by the instance that sent them: how many came, until one came out of order
const slow = [];
const server = http.createServer((request, response) => {
  const answer = () => response.end(`pid=${process.pid} number=${process.env.NODE_APP_INSTANCE} slow=${slow.length} bursts=${JSON.stringify(bursts)} heard=${JSON.stringify(heard)}\n`);
  if (request.url === '/slow') slow.push(answer);
  else answer();
});
process.on('message', (message) => {
  if (message === 'shutdown') {
    server.close();
    console.log('closing the database');
    setTimeout(() => { console.log('the database is closed'); process.exit(0); }, 300);
  } else if (message === 'answer') {
    setTimeout(() => slow.forEach((answer) => answer()), 2000); // later than the end after "shutdown"
  } else if (message.burst) {
    const filling = 'x'.repeat(4000);
    for (let n = 0; n < message.burst; n++) {
      process.send({ type: 'process:msg', topic: 'burst', data: { from: process.env.NODE_APP_INSTANCE, n, filling } });
    }
  } else if (message.topic === 'burst') {
    const { from, n } = message.data;
    bursts[from] = n === (bursts[from] || 0) ? n + 1 : `${bursts[from]}, then ${n}`;
  } else if (message.tell) {
    process.send(message.tell);
  } else if (!message.noise) {
    heard.push(message.topic || message);
  }
});
server.listen(process.env.PORT, () => {
  if (process.argv[2] !== 'silent') setTimeout(() => process.send('ready'), 200);
});
