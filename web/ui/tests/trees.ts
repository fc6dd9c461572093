// Random trees for property tests.
import { seeded } from "../dev/fixture-data.mjs";
import { derive, type FlameTree } from "../src/flame/tree";
import { NodeKind } from "../src/types";

/** A random tree with consistent totals; some frames exist on one side only, some are library code. */
export function randomTree(seed: number, size = 200): FlameTree {
  const random = seeded(seed);
  const depth = [0];
  for (let node = 1; node < size; node += 1) depth.push(1 + Math.floor(random() * Math.min(12, depth[node - 1]! + 1)));
  const parent: number[] = [];
  const open: number[] = [];
  depth.forEach((level, node) => {
    open.length = level;
    parent.push(open[level - 1] ?? -1);
    open[level] = node;
  });
  const side = () => Float64Array.from(depth, () => (random() < 0.35 ? 0 : Math.floor(random() ** 4 * 1e6)));
  const selfA = side();
  const selfB = side();
  const total = (self: Float64Array) => {
    const sums = self.slice();
    for (let node = size - 1; node > 0; node -= 1) sums[parent[node]!]! += sums[node]!;
    return sums;
  };
  const names = ["all", ...Array.from({ length: 24 }, (_, at) => `crate_${at % 5}::function_${at}`)];
  const name = depth.map((_, node) => (node === 0 ? 0 : 1 + Math.floor(random() * 24)));
  return derive({
    names,
    modules: ["app"],
    name,
    module: depth.map(() => 0),
    depth,
    // A function is library code wherever it appears, so its kind follows from its name.
    kind: name.map((at, node) => (node === 0 ? NodeKind.root : at % 3 === 0 ? NodeKind.library : NodeKind.function)),
    fn: name.map((at, node) => (node === 0 ? -1 : at - 1)),
    selfA,
    selfB,
    totalA: total(selfA),
    totalB: total(selfB),
  });
}

export const SEEDS = Array.from({ length: 40 }, (_, at) => at + 1);

export function sum(values: ArrayLike<number>): number {
  return Array.from(values).reduce((total, value) => total + value, 0);
}
