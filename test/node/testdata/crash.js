'use strict';
throw new Error('no database today');
