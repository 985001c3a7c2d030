'use strict';
const fs = require('fs');
const https = require('https');
https.createServer({ key: fs.readFileSync('/srv/key.pem'), cert: fs.readFileSync('/srv/cert.pem') }, (request, response) => {
  response.end(`instance=${process.env.INSTANCE} pid=${process.pid} reused=${request.socket.isSessionReused()}\n`);
}).listen(process.env.PORT);
