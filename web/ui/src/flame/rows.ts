// Which rows of the call tree are open and shown. Pure.
import { childrenOf, type FlameTree } from "./tree";

/** Nodes open at first: the path along which most of the change lies. */
export function openAlongChange(tree: FlameTree, isDiff: boolean): Set<number> {
  const open = new Set<number>();
  const size = (node: number) => (isDiff ? Math.abs(tree.totalB[node]! - tree.totalA[node]!) : tree.totalB[node]!);
  for (let node = 0; node >= 0 && node < tree.size; ) {
    open.add(node);
    let next = -1;
    for (const child of childrenOf(tree, node)) if (next < 0 || size(child) > size(next)) next = child;
    if (next < 0 || size(next) < size(0) * 0.2) break;
    node = next;
  }
  return open;
}

/** Nodes whose callers are all open, in preorder. */
export function openRows(tree: FlameTree, open: ReadonlySet<number>): number[] {
  const rows: number[] = [];
  for (let node = 0; node < tree.size; ) {
    rows.push(node);
    node = open.has(node) ? node + 1 : tree.end[node]!;
  }
  return rows;
}
