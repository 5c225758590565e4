// Dynamic time warping as one writes it first in JavaScript: the whole matrix as an array of arrays, one pair after the
// other, in V8. Speaks to client.py in JSON lines; arrays come as files of little-endian float64.
'use strict';

const fs = require('fs');
const path = require('path');
const readline = require('readline');

const WARM_UP_MS = 300;

// Squared distance of two arrays of numbers; band is in samples, null is none.
function dtw(a, b, band) {
  const n = a.length;
  const m = b.length;
  const costs = [];
  for (let i = 0; i <= n; i++) {
    costs.push(new Array(m + 1).fill(Infinity));
  }
  costs[0][0] = 0;
  for (let i = 1; i <= n; i++) {
    const first = band === null ? 1 : Math.max(1, i - band - Math.max(0, n - m));
    const last = band === null ? m : Math.min(m, i + band + Math.max(0, m - n));
    for (let j = first; j <= last; j++) {
      const difference = a[i - 1] - b[j - 1];
      costs[i][j] = difference * difference + Math.min(costs[i - 1][j - 1], costs[i - 1][j], costs[i][j - 1]);
    }
  }
  return costs[n][m];
}

const operations = {
  batch: ({ query, rows, band }) => rows.map((row) => dtw(query, row, band)),
  pair: ({ a, b, band }) => [dtw(a, b, band)],
};

const scratch = process.argv[2];
const arrays = new Map();
const warm = new Set();
let results = 0;

function load({ name, file, shape }) {
  const bytes = fs.readFileSync(path.join(scratch, file));
  const values = new Float64Array(bytes.buffer, bytes.byteOffset, bytes.byteLength / 8);
  if (shape.length === 1) {
    arrays.set(name, Array.from(values));
    return {};
  }
  const [count, length] = shape;
  const rows = [];
  for (let i = 0; i < count; i++) {
    rows.push(Array.from(values.subarray(i * length, (i + 1) * length)));
  }
  arrays.set(name, rows);
  return {};
}

// V8 compiles what runs often, so the first call of a kind is followed by more until it had time for that.
function warmUp(key, call) {
  if (warm.has(key)) {
    return;
  }
  const began = performance.now();
  do {
    call();
  } while (performance.now() - began < WARM_UP_MS);
  warm.add(key);
}

function run({ operation, repeats, arrays: names, values }) {
  const parameters = { ...values };
  for (const [parameter, name] of Object.entries(names)) {
    parameters[parameter] = arrays.get(name);
  }
  const call = () => operations[operation](parameters);
  const shapes = Object.keys(names).map((parameter) => [parameters[parameter].length, parameters[parameter][0].length]);
  warmUp(JSON.stringify([operation, shapes, values]), call);
  const seconds = [];
  let found = [];
  for (let i = 0; i < repeats; i++) {
    const began = performance.now();
    found = call();
    seconds.push((performance.now() - began) / 1000);
  }
  results += 1;
  const file = `result-node-${results}.f64`;
  fs.writeFileSync(path.join(scratch, file), Buffer.from(Float64Array.from(found).buffer));
  return { seconds, setting: 'plain loop', memory_bytes_peak: null, file, shape: [found.length] };
}

function answer(request) {
  try {
    switch (request.do) {
      case 'put':
        return load(request);
      case 'versions':
        return { node: process.versions.node };
      default:
        return run(request);
    }
  } catch (error) {
    return { error: String(error) };
  }
}

readline.createInterface({ input: process.stdin }).on('line', (line) => {
  process.stdout.write(JSON.stringify(answer(JSON.parse(line))) + '\n');
});
