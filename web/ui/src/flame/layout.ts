// Where each frame lies: horizontal extents in the unit of the values, and per-depth rows ordered from left to right,
// so that drawing and hit tests binary search instead of walking the tree. Pure.
import type { FlameTree } from "./tree";

export type WidthMode = "max" | "baseline" | "candidate";

export interface Layout {
  /** Left edge and width of each node, in the unit of the values. */
  x: Float64Array;
  w: Float64Array;
  /** Nodes with a width, per depth, from left to right. */
  rows: Int32Array[];
  /** Width of the root. */
  extent: number;
}

/** A horizontal stretch of the layout, in the unit of the values. */
export interface Span {
  from: number;
  to: number;
}

/**
 * Lays the tree out. A node's width is the sum over its subtree of each frame's own part (baseline's, candidate's, or
 * the larger of the two), so children always fit inside their parent exactly and a frame that exists on one side only
 * keeps its size under "max". The order of siblings is the tree's, whatever the mode.
 */
export function layOut(tree: FlameTree, mode: WidthMode): Layout {
  const { size, parent, depth, selfA, selfB } = tree;
  const w = new Float64Array(size);
  const x = new Float64Array(size);
  for (let node = size - 1; node >= 0; node -= 1) {
    const own = mode === "baseline" ? selfA[node]! : mode === "candidate" ? selfB[node]! : Math.max(selfA[node]!, selfB[node]!);
    w[node]! += own;
    if (node > 0) w[parent[node]!]! += w[node]!;
  }
  const next = new Float64Array(size);
  const perDepth = new Int32Array(tree.deepest + 1);
  for (let node = 0; node < size; node += 1) {
    const above = parent[node]!;
    if (above >= 0) {
      x[node] = next[above]!;
      next[above]! += w[node]!;
    }
    next[node] = x[node]!;
    if (w[node]! > 0) perDepth[depth[node]!]! += 1;
  }
  const rows = Array.from(perDepth, (length) => new Int32Array(length));
  const fill = new Int32Array(rows.length);
  for (let node = 0; node < size; node += 1) {
    if (w[node]! <= 0) continue;
    const level = depth[node]!;
    rows[level]![fill[level]!] = node;
    fill[level]! += 1;
  }
  return { x, w, rows, extent: size === 0 ? 0 : w[0]! };
}

/** Index in `row` of the first node whose right edge lies beyond `from`. */
export function firstVisible(layout: Layout, row: Int32Array, from: number): number {
  let low = 0;
  let high = row.length;
  while (low < high) {
    const middle = (low + high) >>> 1;
    const node = row[middle]!;
    if (layout.x[node]! + layout.w[node]! > from) high = middle;
    else low = middle + 1;
  }
  return low;
}

/** A rectangle to draw; `node` is -1 for a smear of frames each too narrow to draw. */
export interface Box {
  node: number;
  left: number;
  right: number;
}

/** Frames narrower than this many pixels are merged into one smear. */
export const SMEAR_PIXELS = 0.6;

/**
 * The boxes of one row inside a span, in pixels from 0 to `pixels`. Costs a binary search plus the frames inside the
 * span, not the length of the row.
 */
export function boxesInView(layout: Layout, row: Int32Array, span: Span, pixels: number, into: Box[]): void {
  const scale = pixels / (span.to - span.from);
  let at = firstVisible(layout, row, span.from);
  const begin = into.length;
  while (at < row.length) {
    const node = row[at]!;
    const left = (layout.x[node]! - span.from) * scale;
    if (left >= pixels) return;
    const width = layout.w[node]! * scale;
    if (width >= SMEAR_PIXELS) {
      into.push({ node, left: Math.max(0, left), right: Math.min(pixels, left + width) });
      at += 1;
      continue;
    }
    // Everything that starts within this pixel and stays below the limit becomes one mark.
    const stop = Math.floor(Math.max(0, left)) + 1;
    let right = left;
    while (at < row.length) {
      const candidate = row[at]!;
      const start = (layout.x[candidate]! - span.from) * scale;
      const size = layout.w[candidate]! * scale;
      if (size >= SMEAR_PIXELS || start >= stop) break;
      right = start + size;
      at += 1;
    }
    // The list may hold other rows already: only a box of this one may grow.
    const last = into.length > begin ? into[into.length - 1] : undefined;
    const from = Math.max(0, left);
    if (last !== undefined && last.node === -1 && from - last.right < 0.5) last.right = right;
    else into.push({ node: -1, left: from, right });
  }
}

/** A child this wide says nothing its caller did not say. */
const TRUNK = 0.95;

/** Depth of the first row where the graph branches: above it every frame is nearly as wide as the root. */
export function trunkDepth(tree: FlameTree, layout: Layout): number {
  let depth = 0;
  for (; depth < layout.rows.length - 1; depth += 1) {
    const widest = layout.rows[depth + 1]!.reduce((most, node) => Math.max(most, layout.w[node]!), 0);
    if (widest < layout.extent * TRUNK) break;
  }
  return Math.min(depth, tree.deepest);
}

/** The node at a position, or -1. */
export function nodeAt(layout: Layout, depth: number, position: number): number {
  const row = layout.rows[depth];
  if (row === undefined) return -1;
  const node = row[firstVisible(layout, row, position)];
  return node !== undefined && layout.x[node]! <= position ? node : -1;
}

/** The span a node is zoomed to. */
export function spanOf(layout: Layout, node: number): Span {
  return { from: layout.x[node]!, to: layout.x[node]! + layout.w[node]! };
}
