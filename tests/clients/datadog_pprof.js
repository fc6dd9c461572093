// Profiles taken by `@datadog/pprof`, unmodified, sent as files. The totals that are printed come from the library's own
// object, before it is written. Arguments: address, seconds.
'use strict';
const { time, heap, encode } = require('@datadog/pprof');

const [address, seconds] = [process.argv[2], Number(process.argv[3])];

function totals(profile) {
  const text = (index) => profile.stringTable.strings[Number(index)];
  const sums = {};
  profile.sampleType.forEach((type, at) => {
    const sum = profile.sample.reduce((sum, sample) => sum + BigInt(sample.value[at]), 0n);
    sums[`${text(type.type)}/${text(type.unit)}`] = Number(sum);
  });
  return sums;
}

async function send(name, profile) {
  const file = await encode(profile);
  const url = `${address}/api/ingest?service=ddshop&version=v9&name=${name}&time=received`;
  const answer = await fetch(url, { method: 'POST', body: file });
  if (!answer.ok) throw new Error(`${name}: ${answer.status} ${await answer.text()}`);
  return totals(profile);
}

async function main() {
  heap.start(64 * 1024, 64);
  time.start({ durationMillis: seconds * 1000, intervalMicros: 10000, withContexts: false });
  const end = Date.now() + seconds * 1000;
  const kept = [];
  // The oldest are let go, or the heap would be full before the time is over.
  for (let n = 0; Date.now() < end; n++) kept[n % 2000] = new Array(10000).fill(Math.sqrt(n));
  const sent = { wall: await send('wall', time.stop()), memory: await send('memory', heap.profile()) };
  heap.stop();
  console.log(JSON.stringify(sent));
}

main().catch((error) => {
  console.error(error);
  process.exit(1);
});
