import { describe, expect, test } from "vitest";
import { boxesInView, firstVisible, layOut, nodeAt, SMEAR_PIXELS, trunkDepth, type Box, type Layout, type WidthMode } from "../src/flame/layout";
import { cycle, matchedShare, matchingNodes, matchNames, moveCursor } from "../src/flame/navigate";
import { childrenOf, type FlameTree } from "../src/flame/tree";
import { randomTree, SEEDS, sum } from "./trees";

const MODES: WidthMode[] = ["max", "baseline", "candidate"];

function each(check: (tree: FlameTree, layout: Layout, mode: WidthMode) => void): void {
  for (const seed of SEEDS) {
    const tree = randomTree(seed);
    for (const mode of MODES) check(tree, layOut(tree, mode), mode);
  }
}

describe("layout", () => {
  test("parents cover their children, which do not overlap", () => {
    each((tree, layout) => {
      for (let node = 0; node < tree.size; node += 1) {
        let edge = layout.x[node]!;
        for (const child of childrenOf(tree, node)) {
          expect(layout.x[child]).toBe(edge);
          edge += layout.w[child]!;
        }
        expect(edge).toBeLessThanOrEqual(layout.x[node]! + layout.w[node]!);
      }
    });
  });

  test("the root is as wide as the sum of every frame's own part", () => {
    each((tree, layout, mode) => {
      const own = { max: tree.selfA.map((a, at) => Math.max(a, tree.selfB[at]!)), baseline: tree.selfA, candidate: tree.selfB }[mode];
      expect(layout.extent).toBe(sum(own));
      if (mode === "candidate") expect([...layout.w]).toEqual([...tree.totalB]);
      if (mode === "baseline") expect([...layout.w]).toEqual([...tree.totalA]);
    });
  });

  test("under the larger side nothing that has a cost disappears", () => {
    each((tree, layout, mode) => {
      if (mode !== "max") return;
      for (let node = 0; node < tree.size; node += 1) {
        expect(layout.w[node]).toBeGreaterThanOrEqual(Math.max(tree.totalA[node]!, tree.totalB[node]!));
      }
    });
  });

  test("siblings keep their order whatever the width stands for", () => {
    each((_, layout) => {
      for (const row of layout.rows) expect([...row]).toEqual([...row].sort((a, b) => a - b));
    });
  });

  test("rows hold every frame with a width exactly once", () => {
    each((tree, layout) => {
      const listed = layout.rows.flatMap((row) => [...row]).sort((a, b) => a - b);
      expect(listed).toEqual(Array.from({ length: tree.size }, (_, node) => node).filter((node) => layout.w[node]! > 0));
    });
  });

  test("the trunk ends where the graph branches", () => {
    const tree = randomTree(5);
    expect(trunkDepth(tree, layOut(tree, "max"))).toBeLessThanOrEqual(tree.deepest);
  });
});

describe("culling", () => {
  const spans = (layout: Layout) => [
    { from: 0, to: layout.extent },
    { from: layout.extent * 0.3, to: layout.extent * 0.31 },
    { from: layout.extent * 0.5, to: layout.extent },
    { from: 0, to: layout.extent / 5000 },
  ];

  test("draws every frame wide enough to see, where a full walk would", () => {
    each((_, layout) => {
      if (layout.extent === 0) return;
      for (const span of spans(layout)) {
        for (const row of layout.rows) {
          const drawn: Box[] = [];
          boxesInView(layout, row, span, 900, drawn);
          const scale = 900 / (span.to - span.from);
          const wanted = [...row].filter((node) => {
            const left = (layout.x[node]! - span.from) * scale;
            return layout.x[node]! + layout.w[node]! > span.from && left < 900 && layout.w[node]! * scale >= SMEAR_PIXELS;
          });
          expect(drawn.filter((box) => box.node >= 0).map((box) => box.node)).toEqual(wanted);
          for (const box of drawn) {
            expect(box.left).toBeGreaterThanOrEqual(0);
            expect(box.right).toBeGreaterThanOrEqual(box.left);
          }
        }
      }
    });
  });

  test("merges what is too narrow instead of drawing or dropping it", () => {
    const tree = randomTree(9, 4000);
    const layout = layOut(tree, "max");
    const row = layout.rows.reduce((longest, next) => (next.length > longest.length ? next : longest));
    const drawn: Box[] = [];
    boxesInView(layout, row, { from: 0, to: layout.extent }, 100, drawn);
    const smears = drawn.filter((box) => box.node < 0);
    expect(smears.length).toBeGreaterThan(0);
    expect(drawn.length).toBeLessThan(250);
    // Every frame lies under a box, up to a pixel.
    const scale = 100 / layout.extent;
    for (const node of row) {
      const left = layout.x[node]! * scale;
      expect(drawn.some((box) => left >= box.left - 1 && left <= box.right + 1)).toBe(true);
    }
  });

  test("rows gathered into one list stay apart: a smear never grows into the row above it", () => {
    const tree = randomTree(9, 4000);
    const layout = layOut(tree, "max");
    const span = { from: 0, to: layout.extent };
    const together: Box[] = [];
    const apart: Box[] = [];
    for (const row of layout.rows) {
      boxesInView(layout, row, span, 100, together);
      const own: Box[] = [];
      boxesInView(layout, row, span, 100, own);
      apart.push(...own);
    }
    expect(together).toEqual(apart);
  });

  test("binary search finds the same first frame as a scan", () => {
    each((_, layout) => {
      for (const row of layout.rows) {
        for (const share of [0, 0.1, 0.5, 0.77, 1]) {
          const from = layout.extent * share;
          const scanned = [...row].findIndex((node) => layout.x[node]! + layout.w[node]! > from);
          expect(firstVisible(layout, row, from)).toBe(scanned < 0 ? row.length : scanned);
        }
      }
    });
  });

  test("a position finds the frame drawn there", () => {
    each((tree, layout) => {
      for (let node = 0; node < tree.size; node += 7) {
        if (!(layout.w[node]! > 0)) continue;
        expect(nodeAt(layout, tree.depth[node]!, layout.x[node]! + layout.w[node]! / 2)).toBe(node);
      }
      expect(nodeAt(layout, tree.deepest + 1, 0)).toBe(-1);
      expect(nodeAt(layout, 0, layout.extent + 1)).toBe(-1);
    });
  });
});

describe("keys", () => {
  test("never leave the graph or land on a frame without width", () => {
    each((tree, layout) => {
      if (layout.extent === 0) return;
      let at = 0;
      const moves = ["child", "right", "child", "left", "parent", "child", "right", "child", "first"] as const;
      for (let step = 0; step < 60; step += 1) {
        at = moveCursor(tree, layout, at, moves[step % moves.length]!);
        expect(layout.w[at]).toBeGreaterThan(0);
      }
      expect(moveCursor(tree, layout, 0, "parent")).toBe(0);
    });
  });

  test("down goes to the widest child and up comes back", () => {
    const tree = randomTree(3);
    const layout = layOut(tree, "max");
    const child = moveCursor(tree, layout, 0, "child");
    expect(layout.w[child]).toBe(Math.max(...childrenOf(tree, 0).map((node) => layout.w[node]!)));
    expect(moveCursor(tree, layout, child, "parent")).toBe(0);
  });
});

describe("search", () => {
  test("finds what contains the text, ignoring case, and nothing for an empty search", () => {
    expect(matchNames(["a::Foo", "bar"], " foo ")).toEqual(Uint8Array.from([1, 0]));
    expect(matchNames(["a"], "  ")).toBeNull();
    expect(matchNames(["a"], null)).toBeNull();
  });

  test("counts nested matches once", () => {
    for (const seed of SEEDS) {
      const tree = randomTree(seed);
      const layout = layOut(tree, "max");
      const matches = matchingNodes(tree, layout, matchNames(tree.names, "function"));
      const share = matchedShare(tree, layout, matches);
      expect(share).toBeGreaterThan(0);
      expect(share).toBeLessThanOrEqual(1 + 1e-9);
    }
  });

  test("goes round in both directions", () => {
    expect(cycle([3, 5, 9], 5, 1)).toBe(9);
    expect(cycle([3, 5, 9], 9, 1)).toBe(3);
    expect(cycle([3, 5, 9], 3, -1)).toBe(9);
    expect(cycle([], 4, 1)).toBe(4);
  });
});
