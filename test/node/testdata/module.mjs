import { createServer } from 'node:http';
import cluster from 'node:cluster';

const server = createServer((request, response) => {
  response.end(`instance=${process.env.INSTANCE} pid=${process.pid} worker=${cluster.isWorker} options=[${process.env.NODE_OPTIONS || ''}]\n`);
});
await new Promise((resolve) => server.listen(process.env.PORT, resolve));
