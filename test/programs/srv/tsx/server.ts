import { createServer, IncomingMessage, ServerResponse } from "node:http";

const port: number = 3000;
createServer((req: IncomingMessage, res: ServerResponse) => {
  res.end("peer=" + req.socket.remoteAddress);
}).listen(port);
