// A Node program profiled by `@pyroscope/nodejs`, unmodified: wall, CPU and heap. Arguments: address, seconds.
'use strict';
const Pyroscope = require('@pyroscope/nodejs');

const [address, seconds] = [process.argv[2], Number(process.argv[3])];
Pyroscope.init({
  serverAddress: address,
  appName: 'nodeshop',
  tags: { version: 'v9' },
  flushIntervalMs: seconds * 1000 - 500,
  wall: { collectCpuTime: true },
});
Pyroscope.start();
const end = Date.now() + seconds * 1000;
const kept = [];
function spin() {
  let total = 0;
  for (let i = 0; i < 3e6; i++) total += Math.sqrt(i);
  kept.push(new Array(1000).fill(total));
  if (Date.now() < end) setImmediate(spin);
  else setTimeout(() => Pyroscope.stop().then(() => process.exit(0)), 1000);
}
spin();
