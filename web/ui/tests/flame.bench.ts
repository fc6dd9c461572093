// What the flame graph costs on a tree of 120 000 frames, without painting: `npm run bench`.
import { bench, describe } from "vitest";
import { bigTree } from "../dev/fixture-data.mjs";
import { selectFunctions } from "../src/compare/functions";
import { boxesInView, layOut, spanOf, type Box } from "../src/flame/layout";
import { matchingNodes, matchNames } from "../src/flame/navigate";
import { foldLibraries, fromDiff } from "../src/flame/tree";
import type { Diff, FunctionRow } from "../src/types";

const SIZE = 120_000;
const answer = { baseline: { divisor: 5000 }, candidate: { divisor: 5000 }, tree: bigTree(SIZE) } as unknown as Diff;
const tree = fromDiff(answer);
const layout = layOut(tree, "max");
const mask = matchNames(tree.names, "function_77");
const focus = layout.rows[20]!.reduce((widest, node) => (layout.w[node]! > layout.w[widest]! ? node : widest));
const rows = Array.from({ length: 50_000 }, (_, at) => ({ id: String(at), name: `f${at}`, contribution: Math.sin(at), confidence: "strong", state: "up", library: false })) as unknown as FunctionRow[];

function boxes(span: { from: number; to: number }): Box[] {
  const into: Box[] = [];
  for (const row of layout.rows) boxesInView(layout, row, span, 1600, into);
  return into;
}

describe("120 000 frames", () => {
  bench("decode and derive", () => void fromDiff(answer));
  bench("lay out", () => void layOut(tree, "max"));
  bench("fold libraries", () => void foldLibraries(tree, []));
  bench("boxes, whole view", () => void boxes({ from: 0, to: layout.extent }));
  bench("boxes, zoomed", () => void boxes(spanOf(layout, focus)));
  bench("search 9 000 names", () => void matchingNodes(tree, layout, mask ?? matchNames(tree.names, "function_77")));
});

describe("50 000 functions", () => {
  bench("filter and sort", () => void selectFunctions(rows, { show: "all", find: null, code: "all", sort: "contribution", descending: true, pinned: null }));
});
