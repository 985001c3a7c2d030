import { createServer, type IncomingMessage, type ServerResponse } from 'node:http';

interface Answer { pid: number }

const answer = (): Answer => ({ pid: process.pid });
createServer((request: IncomingMessage, response: ServerResponse): void => {
  response.end(`pid=${answer().pid}\n`);
}).listen(process.env.PORT);
