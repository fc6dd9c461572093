// Moving a cursor through the tree by keys, and cycling through search matches. Pure.
import type { Layout } from "./layout";
import { childrenOf, type FlameTree } from "./tree";

export type Move = "parent" | "child" | "left" | "right" | "first";

/** The node a move leads to; the same node when there is nothing there. Frames without width are skipped. */
export function moveCursor(tree: FlameTree, layout: Layout, node: number, move: Move): number {
  switch (move) {
    case "first":
      return 0;
    case "parent":
      return Math.max(0, tree.parent[node]!);
    case "child": {
      let widest = node;
      for (const child of childrenOf(tree, node)) {
        if (layout.w[child]! > 0 && (widest === node || layout.w[child]! > layout.w[widest]!)) widest = child;
      }
      return widest;
    }
    case "left":
    case "right": {
      const siblings = visibleSiblings(tree, layout, node);
      const at = siblings.indexOf(node) + (move === "left" ? -1 : 1);
      return siblings[at] ?? node;
    }
  }
}

export function visibleSiblings(tree: FlameTree, layout: Layout, node: number): number[] {
  const parent = tree.parent[node]!;
  return parent < 0 ? [node] : childrenOf(tree, parent).filter((sibling) => layout.w[sibling]! > 0);
}

/** Which names match a search, as a mask over `tree.names`; null when there is no search. */
export function matchNames(names: readonly string[], find: string | null): Uint8Array | null {
  const wanted = find?.trim().toLowerCase() ?? "";
  if (wanted === "") return null;
  return Uint8Array.from(names, (name) => (name.toLowerCase().includes(wanted) ? 1 : 0));
}

/** Nodes whose names match and which have a width, in preorder. */
export function matchingNodes(tree: FlameTree, layout: Layout, mask: Uint8Array | null): number[] {
  const found: number[] = [];
  if (mask === null) return found;
  for (let node = 1; node < tree.size; node += 1) {
    if (mask[tree.name[node]!] === 1 && layout.w[node]! > 0) found.push(node);
  }
  return found;
}

/** The next match after (or before) a node, round and round. */
export function cycle(matches: readonly number[], from: number, step: 1 | -1): number {
  if (matches.length === 0) return from;
  if (step === 1) return matches.find((node) => node > from) ?? matches[0]!;
  return matches.findLast((node) => node < from) ?? matches[matches.length - 1]!;
}

/** Share of the layout under matches, counting nested matches once. */
export function matchedShare(tree: FlameTree, layout: Layout, matches: readonly number[]): number {
  let sum = 0;
  let covered = 0;
  for (const node of matches) {
    if (node < covered) continue;
    sum += layout.w[node]!;
    covered = tree.end[node]!;
  }
  return layout.extent > 0 ? sum / layout.extent : 0;
}
