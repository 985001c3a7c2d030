'use strict';
const express = require('express');
const app = express();
app.get('/', (request, response) => response.type('text').send(`pid=${process.pid}\n`));
app.listen(process.env.PORT);
