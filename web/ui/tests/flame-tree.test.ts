import { describe, expect, test } from "vitest";
import { diffOf, profileOf } from "../dev/fixture-data.mjs";
import { openAlongChange, openRows } from "../src/flame/rows";
import { childrenOf, derive, findKey, foldLibraries, fromDiff, fromProfile, nameOf, pathTo, writeKey } from "../src/flame/tree";
import { NodeKind, type Diff, type ProfileAnswer } from "../src/types";
import { answer } from "./fixture";
import { randomTree, SEEDS, sum } from "./trees";

const diff = answer<Diff>(diffOf({ route: "/checkout" }));

describe("derived columns", () => {
  test("parents, subtree ends and depths agree", () => {
    for (const seed of SEEDS) {
      const tree = randomTree(seed);
      for (let node = 1; node < tree.size; node += 1) {
        const parent = tree.parent[node]!;
        expect(tree.depth[parent]).toBe(tree.depth[node]! - 1);
        expect(parent).toBeLessThan(node);
        expect(tree.end[node]).toBeGreaterThan(node);
        expect(tree.end[node]).toBeLessThanOrEqual(tree.end[parent]!);
      }
    }
  });

  test("values are divided by the side's divisor, and a side without requests draws as nothing", () => {
    const tree = fromDiff(diff);
    expect(tree.totalA[0]).toBeCloseTo(diff.baseline.total / diff.baseline.requests, 6);
    expect(tree.totalB[0]).toBeCloseTo(diff.candidate.value, 6);
    const none = fromDiff({ ...diff, baseline: { ...diff.baseline, divisor: 0 } });
    expect(sum(none.totalA)).toBe(0);
    expect(none.totalB[0]).toBeCloseTo(diff.candidate.value, 6);
  });

  test("one release alone has the same values on both sides", () => {
    const profile = answer<ProfileAnswer>(profileOf());
    const tree = fromProfile(profile.tree, profile.requests);
    expect(tree.totalA).toEqual(tree.totalB);
    expect(tree.totalB[0]).toBeCloseTo(profile.total / profile.requests, 6);
  });
});

describe("path keys", () => {
  test("lead back to the node, also after values changed", () => {
    const before = fromDiff(diff);
    const after = fromDiff(answer<Diff>(diffOf({ route: "/checkout", per: "total" })));
    const node = before.names.length > 0 ? before.name.findIndex((_, at) => nameOf(before, at).endsWith("price_basket")) : 0;
    expect(node).toBeGreaterThan(0);
    expect(findKey(before, writeKey(before, node))).toBe(node);
    const there = findKey(after, writeKey(before, node));
    expect(pathTo(after, there).map((at) => nameOf(after, at))).toEqual(pathTo(before, node).map((at) => nameOf(before, at)));
  });

  test("an unknown or broken key means the root", () => {
    const tree = fromDiff(diff);
    for (const key of [null, "", "00000001", "zzz", "../..", "123456789"]) expect(findKey(tree, key)).toBe(0);
  });
});

describe("folding libraries", () => {
  test("loses and invents nothing", () => {
    for (const seed of SEEDS) {
      const tree = randomTree(seed);
      const folded = foldLibraries(tree, []);
      expect(sum(folded.selfA)).toBe(sum(tree.selfA));
      expect(sum(folded.selfB)).toBe(sum(tree.selfB));
      expect(folded.totalA[0]).toBe(tree.totalA[0]);
      expect(folded.kind.includes(NodeKind.library)).toBe(false);
      for (let node = 0; node < folded.size; node += 1) {
        const below = childrenOf(folded, node);
        expect(folded.selfA[node]! + sum(below.map((child) => folded.totalA[child]!))).toBe(folded.totalA[node]);
        expect(new Set(below.map((child) => folded.name[child])).size).toBe(below.length);
      }
    }
  });

  test("keeps the total of a function's frames", () => {
    for (const seed of SEEDS) {
      const tree = randomTree(seed);
      const folded = foldLibraries(tree, []);
      const perName = (of: typeof tree) => {
        const totals = new Map<string, number>();
        for (let node = 0; node < of.size; node += 1) {
          if (of.kind[node] === NodeKind.library) continue;
          totals.set(nameOf(of, node), (totals.get(nameOf(of, node)) ?? 0) + of.totalB[node]!);
        }
        return totals;
      };
      expect([...perName(folded)].sort()).toEqual([...perName(tree)].sort());
    }
  });

  test("folds frames without a name when they lie in a library, and keeps the others", () => {
    const unnamed = answer<Diff>(diffOf({ route: "/checkout", scenario: "unresolved" }));
    const tree = fromDiff(unnamed);
    const isUnnamed = (of: typeof tree) => of.kind.includes(NodeKind.unresolved);
    expect(isUnnamed(tree)).toBe(true);
    expect(isUnnamed(foldLibraries(tree, unnamed.functions))).toBe(true);
    expect(isUnnamed(foldLibraries(tree, unnamed.functions.map((row) => ({ library: row.library || row.name.startsWith("0x") }))))).toBe(false);
  });

  test("orders siblings by name", () => {
    const folded = foldLibraries(fromDiff(diff), diff.functions);
    for (let node = 0; node < folded.size; node += 1) {
      const names = childrenOf(folded, node).map((child) => nameOf(folded, child));
      expect(names).toEqual([...names].sort());
    }
  });
});

describe("one name in two files", () => {
  const values = () => new Float64Array([0, 0, 3, 5]);
  const tree = derive({
    names: ["all", "main", "run"],
    modules: ["", "cart.js", "price.js"],
    name: [0, 1, 2, 2],
    module: [0, 0, 1, 2],
    depth: [0, 1, 2, 2],
    kind: [NodeKind.root, NodeKind.library, NodeKind.function, NodeKind.function],
    fn: [-1, 0, 1, 2],
    selfA: values(),
    selfB: values(),
    totalA: new Float64Array([8, 8, 3, 5]),
    totalB: new Float64Array([8, 8, 3, 5]),
  });

  test("is two frames with two addresses, folded or not", () => {
    expect([2, 3].map((node) => findKey(tree, writeKey(tree, node)))).toEqual([2, 3]);
    const folded = foldLibraries(tree, []);
    expect([...folded.totalB]).toEqual([8, 3, 5]);
  });
});

describe("the call tree", () => {
  test("opens along the change and shows exactly the rows whose callers are open", () => {
    const tree = foldLibraries(fromDiff(diff), diff.functions);
    const rows = openRows(tree, openAlongChange(tree, true)).map((node) => nameOf(tree, node));
    expect(rows).toContain("checkout::pricing::price_basket");
    expect(openRows(tree, new Set())).toEqual([0]);
    const all = new Set(Array.from({ length: tree.size }, (_, node) => node));
    expect(openRows(tree, all)).toHaveLength(tree.size);
  });
});
