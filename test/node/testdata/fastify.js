'use strict';
const fastify = require('fastify')();
fastify.get('/', async () => `pid=${process.pid}\n`);
fastify.listen({ port: Number(process.env.PORT), host: '::' });
