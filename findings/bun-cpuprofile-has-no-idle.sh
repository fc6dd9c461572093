#!/usr/bin/env bash
# How long a function ran, as Bun's `--cpu-prof` says it in a `.cpuprofile`, the format of V8's profiler.
#
# A good guess: a sample stands for the time until the next one, as it does in files of Node, where what lies between two pieces
# of work is covered by samples named `(idle)`. Seen: Bun 1.4.4 (JavaScriptCore) takes no samples while it waits and has no node
# for it. `timeDeltas` still add up to the whole run, so the last sample before each pause gets the pause: a function that
# computes for 0.3 s and is called between pauses of 1 s in all seems to run for 1.3 s. A server that mostly waits seems to be
# busy all the time. `startTime` is the calendar's in microseconds; V8's counts from the start of the machine.
#
# Emberline knows such files by that and takes what is far longer than the distance of samples for idle
# (`model/src/formats/v8_cpu.rs`).
#
# Needs node 20 and npm. Ends with 0 while that is so.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
npm init --yes >/dev/null
npm install --silent --no-audit --no-fund bun@1.4.4
cat >work.mjs <<'JS'
function compute(milliseconds) {
  const end = performance.now() + milliseconds;
  let sum = 0;
  while (performance.now() < end) for (let at = 0; at < 1000; at++) sum += Math.sqrt(at);
  return sum;
}
compute(200);
for (let round = 0; round < 5; round++) {
  await new Promise(done => setTimeout(done, 200));
  compute(20);
}
JS
node --cpu-prof --cpu-prof-name=node.cpuprofile work.mjs
node_modules/.bin/bun --cpu-prof --cpu-prof-name=bun.cpuprofile work.mjs
cat >seen.mjs <<'JS'
import { readFileSync } from "node:fs";
const seen = {};
for (const name of ["node", "bun"]) {
  const file = JSON.parse(readFileSync(`${name}.cpuprofile`));
  const names = new Map(file.nodes.map(node => [node.id, node.callFrame.functionName]));
  const spent = {};
  let time = file.startTime;
  const times = file.timeDeltas.map(delta => (time += delta));
  file.samples.forEach((node, at) => {
    const of = names.get(node);
    spent[of] = (spent[of] ?? 0) + ((times[at + 1] ?? file.endTime) - times[at]) / 1000;
  });
  const shown = of => (spent[of] ?? 0).toFixed(0) + " ms";
  console.log(`${name}: compute ${shown("compute")}, (idle) ${shown("(idle)")}, startTime ${file.startTime}`);
  seen[name] = { compute: spent.compute, idle: spent["(idle)"] ?? 0, calendar: file.startTime > 1e15 };
}
const isSo = seen.node.compute < 600 && seen.node.idle > 800 && !seen.node.calendar
  && seen.bun.compute > 1000 && seen.bun.idle === 0 && seen.bun.calendar;
if (!isSo) {
  console.log("Bun writes pauses otherwise now");
  process.exit(1);
}
JS
node --version
echo "bun $(node_modules/.bin/bun --version)"
node seen.mjs
