#!/usr/bin/env bash
# @pyroscope/nodejs 0.6.4: what a profile calls a function is `./path/from/the/working/directory.js:function:line`, although the
# pprof function beside it has a field for the file and the line has a field for the line.
#
# A good guess: the name of the function. Seen: one function has as many names as it was started from folders and as it had
# lines that were sampled, so that a comment above it makes it a new function in the next release.
#
# Ends with 0 while that is so.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
echo '{}' >package.json
npm install --silent --ignore-scripts --no-audit --no-fund @pyroscope/nodejs@0.6.4
cat >shop.js <<'JS'
const http = require('http');
const zlib = require('zlib');
const Pyroscope = require('@pyroscope/nodejs');
const names = new Set();
const server = http.createServer((request, response) => {
  const parts = [];
  request.on('data', (part) => parts.push(part));
  request.on('end', () => {
    const body = Buffer.concat(parts);
    const begin = body.indexOf(Buffer.from([0x1f, 0x8b]));
    let text = body;
    try {
      text = zlib.gunzipSync(body.subarray(begin), { finishFlush: zlib.constants.Z_SYNC_FLUSH });
    } catch {}
    for (const found of text.toString('latin1').matchAll(/[ -~]*priceBasket[ -~]*/g)) names.add(found[0]);
    response.end();
  });
});
function priceBasket() {
  let total = 0;
  for (const end = Date.now() + 3000; Date.now() < end; ) total += Math.sqrt(total + 1);
  return total;
}
server.listen(0, '127.0.0.1', () => {
  Pyroscope.init({ serverAddress: `http://127.0.0.1:${server.address().port}`, appName: 'shop', flushIntervalMs: 60000 });
  Pyroscope.start();
  setTimeout(() => {
    priceBasket();
    Pyroscope.stop().then(() => {
      console.log(JSON.stringify([...names]));
      process.exit([...names].some((name) => /^\W?\.\/shop\.js:priceBasket:\d+$/.test(name)) ? 0 : 1);
    });
  }, 200);
});
JS
node --version
echo '@pyroscope/nodejs 0.6.4'
node shop.js
