// As leaky.c, in JavaScript. Requests leave their memory to the garbage collector.
'use strict';

const fs = require('fs');

const TICKS = 400, REST_TICKS = 1000, WARM_TICKS = 60;
const LEAKED = 120000, CACHED = 100000, CACHED_A_TICK = 10, REQUEST = 2 << 20;

const ledger = [];
const cache = [];

function leak(bytes) {
  ledger.push(Buffer.allocUnsafeSlow(bytes).fill(1));
}

function warmCache() {
  for (let i = 0; i < CACHED_A_TICK; i++) cache.push(Buffer.allocUnsafeSlow(CACHED).fill(2));
}

function serveRequest() {
  Buffer.allocUnsafeSlow(REQUEST).fill(3);
}

let tick = 0;

function onTick() {
  serveRequest();
  if (tick % 10 === 0) global.gc();
  if (tick < WARM_TICKS) warmCache();
  if (tick < TICKS) leak(LEAKED);
  if (tick === TICKS) {
    const cached = WARM_TICKS * CACHED_A_TICK * CACHED;
    console.log(JSON.stringify({leaked: TICKS * LEAKED, cached, touched: TICKS * REQUEST}));
  }
  if (++tick === TICKS + REST_TICKS) process.exit(0);
}

fs.readSync(0, Buffer.alloc(1));
setInterval(onTick, 20);
