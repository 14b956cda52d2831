// A healthy Node service under steady load: a cache of bounded size and much garbage, which the collector
// takes in waves. `steady.js CACHE_BYTES GARBAGE_BYTES_PER_S`
const ANSWER = 512; // doubles: 4 KiB
const [room, garbage] = process.argv.slice(2).map(Number);
const entries = room / (ANSWER * 8);
const perTick = garbage / (ANSWER * 8) / 100;
const cache = new Map();
let requests = 0;

const compute = (id) => new Array(ANSWER).fill(id + 0.5);

console.log("serves");
setInterval(() => {
  for (let request = 0; request < perTick; request++) {
    // The oldest answer makes room for the newest.
    if (cache.size >= entries) cache.delete(cache.keys().next().value);
    cache.set(requests, compute(requests));
    requests += 1;
  }
}, 10);
