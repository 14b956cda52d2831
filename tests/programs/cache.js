// A Node service whose cache keeps every answer, because nobody ever evicts one; beside it the garbage
// of each request. `cache.js CALM_S BYTES_PER_S`
const ANSWER = 512; // doubles: 4 KiB
const [calm, rate] = process.argv.slice(2).map(Number);
const cache = new Map();
const now = () => performance.now() / 1000;
const begin = now();
let leaking = false;

const compute = (id) => new Array(ANSWER).fill(id + 0.5);

setInterval(() => {
  // 20 MiB of garbage each second.
  for (let request = 0; request < 50; request++) compute(request);
  const elapsed = now() - begin - calm;
  if (elapsed < 0) return;
  if (!leaking) console.log("leaks");
  leaking = true;
  while (cache.size * ANSWER * 8 < rate * elapsed) cache.set(`page-${cache.size}`, compute(cache.size));
}, 10);
