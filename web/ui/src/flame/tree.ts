// A flame tree as the graph needs it: typed columns in preorder, values already in the unit shown, and what follows
// from them (parents, subtree ends, a key per path). Pure.
// Path keys are 32-bit hashes: two paths may share one, and then a shared link focuses the first of them.
import { NodeKind, type Diff, type DiffTree, type FunctionRow, type ProfileTree } from "../types";

export interface FlameTree {
  size: number;
  names: readonly string[];
  modules: readonly string[];
  name: Int32Array;
  module: Int32Array;
  depth: Int32Array;
  kind: Uint8Array;
  /** Index into the answer's function rows, or -1. */
  fn: Int32Array;
  selfA: Float64Array;
  selfB: Float64Array;
  totalA: Float64Array;
  totalB: Float64Array;
  parent: Int32Array;
  /** One past the last node of the subtree. */
  end: Int32Array;
  key: Int32Array;
  deepest: number;
}

interface Columns {
  names: readonly string[];
  modules: readonly string[];
  name: ArrayLike<number>;
  module: ArrayLike<number>;
  depth: ArrayLike<number>;
  kind: ArrayLike<number>;
  fn: ArrayLike<number>;
  selfA: Float64Array;
  selfB: Float64Array;
  totalA: Float64Array;
  totalB: Float64Array;
}

function textHash(text: string): number {
  let hash = 0x811c9dc5;
  for (let at = 0; at < text.length; at += 1) hash = Math.imul(hash ^ text.charCodeAt(at), 0x01000193);
  return hash;
}

/** Names that two functions have, in two files: those are told apart by their modules as well. */
function namesOfSeveralModules({ name, module }: Pick<Columns, "name" | "module">): Set<number> {
  const first = new Map<number, number>();
  const twins = new Set<number>();
  for (let node = 0; node < name.length; node += 1) {
    const known = first.get(name[node]!);
    if (known === undefined) first.set(name[node]!, module[node]!);
    else if (known !== module[node]) twins.add(name[node]!);
  }
  return twins;
}

/** Derives parents, subtree ends and path keys. Columns must be in preorder with node 0 at depth 0. */
export function derive(columns: Columns): FlameTree {
  const size = columns.depth.length;
  // `new` copies an array in one go; `from` would walk an iterator, ten times slower.
  const depth = new Int32Array(columns.depth);
  const name = new Int32Array(columns.name);
  const parent = new Int32Array(size);
  const end = new Int32Array(size);
  const key = new Int32Array(size);
  const hashes = new Int32Array(columns.names.map(textHash));
  const twins = namesOfSeveralModules(columns);
  const modules = twins.size === 0 ? [] : columns.modules.map(textHash);
  const open: number[] = [];
  let deepest = 0;
  for (let node = 0; node < size; node += 1) {
    const level = depth[node]!;
    while (open.length > level) end[open.pop()!] = node;
    const above = open.length === 0 ? -1 : open[open.length - 1]!;
    parent[node] = above;
    const seed = above < 0 ? 17 : key[above]!;
    const twin = twins.has(name[node]!) ? modules[columns.module[node]!]! : 0;
    const mixed = Math.imul(seed ^ hashes[name[node]!]! ^ twin, 0x9e3779b1);
    key[node] = mixed ^ (mixed >>> 15);
    open.push(node);
    if (level > deepest) deepest = level;
  }
  while (open.length > 0) end[open.pop()!] = size;
  return {
    ...columns,
    size,
    depth,
    name,
    module: new Int32Array(columns.module),
    kind: new Uint8Array(columns.kind),
    fn: new Int32Array(columns.fn),
    parent,
    end,
    key,
    deepest,
  };
}

function scaled(values: readonly number[], divisor: number): Float64Array {
  // A side without requests has no cost per request: it draws as nothing rather than as infinity.
  const factor = divisor > 0 ? 1 / divisor : 0;
  const result = new Float64Array(values);
  for (let at = 0; at < result.length; at += 1) result[at]! *= factor;
  return result;
}

export function fromDiff(diff: Pick<Diff, "baseline" | "candidate"> & { tree: DiffTree }): FlameTree {
  const { tree } = diff;
  return derive({
    names: tree.names,
    modules: tree.modules,
    name: tree.name,
    module: tree.module,
    depth: tree.depth,
    kind: tree.kind,
    fn: tree.function,
    selfA: scaled(tree.self_a, diff.baseline.divisor),
    selfB: scaled(tree.self_b, diff.candidate.divisor),
    totalA: scaled(tree.total_a, diff.baseline.divisor),
    totalB: scaled(tree.total_b, diff.candidate.divisor),
  });
}

/** One release alone: both sides hold the same values, so nothing counts as changed. */
export function fromProfile(tree: ProfileTree, divisor: number): FlameTree {
  const self = scaled(tree.self, divisor);
  const total = scaled(tree.total, divisor);
  return derive({
    names: tree.names,
    modules: tree.modules,
    name: tree.name,
    module: tree.module,
    depth: tree.depth,
    kind: tree.kind,
    fn: tree.name.map(() => -1),
    selfA: self,
    selfB: self,
    totalA: total,
    totalB: total,
  });
}

/** A frame without a name can lie in a library too, such as a stripped libc; its function row tells. */
export function isLibrary(tree: FlameTree, node: number, functions: readonly Pick<FunctionRow, "library">[]): boolean {
  return tree.kind[node] === NodeKind.library || functions[tree.fn[node]!]?.library === true;
}

/**
 * Folds library frames into the nearest caller that is not one, merging what then has the same path. Totals of the
 * frames that stay are unchanged; their self grows by what was folded in. Siblings come in name order, as the server
 * sends them, so frames keep their place when a refresh brings another first caller.
 */
export function foldLibraries(tree: FlameTree, functions: readonly Pick<FunctionRow, "library">[]): FlameTree {
  if (tree.size === 0) return tree;
  // Two functions may have one name, in two files.
  const modules = Math.max(1, tree.modules.length);
  const width = tree.names.length * modules;
  // Merged frames by first appearance: what they stand for, their caller, their sums.
  const from: number[] = [];
  const caller: number[] = [];
  const selfA = new Float64Array(tree.size);
  const selfB = new Float64Array(tree.size);
  const totalA = new Float64Array(tree.size);
  const totalB = new Float64Array(tree.size);
  const target = new Int32Array(tree.size);
  const byPath = new Map<number, number>();
  for (let node = 0; node < tree.size; node += 1) {
    const above = node === 0 ? -1 : target[tree.parent[node]!]!;
    let into = above;
    if (node === 0 || !isLibrary(tree, node, functions)) {
      const path = (above + 1) * width + tree.name[node]! * modules + tree.module[node]!;
      into = byPath.get(path) ?? from.length;
      if (into === from.length) {
        byPath.set(path, into);
        from.push(node);
        caller.push(above);
      }
      // Frames merged here are disjoint: a stack passes through one of them.
      totalA[into]! += tree.totalA[node]!;
      totalB[into]! += tree.totalB[node]!;
    }
    target[node] = into;
    selfA[into]! += tree.selfA[node]!;
    selfB[into]! += tree.selfB[node]!;
  }
  const { order, depth } = preorder(tree, from, caller);
  const pick = (column: Float64Array) => new Float64Array(order.map((merged) => column[merged]!));
  const pickInt = (column: ArrayLike<number>) => order.map((merged) => column[from[merged]!]!);
  return derive({
    names: tree.names,
    modules: tree.modules,
    name: pickInt(tree.name),
    module: pickInt(tree.module),
    depth,
    kind: pickInt(tree.kind),
    fn: pickInt(tree.fn),
    selfA: pick(selfA),
    selfB: pick(selfB),
    totalA: pick(totalA),
    totalB: pick(totalB),
  });
}

/** Merged frames in preorder, siblings by name. */
function preorder(tree: FlameTree, from: readonly number[], caller: readonly number[]): { order: number[]; depth: number[] } {
  const rank = new Int32Array(tree.names.length);
  const byName = tree.names.map((_, at) => at).sort((a, b) => (tree.names[a]! < tree.names[b]! ? -1 : 1));
  byName.forEach((name, at) => (rank[name] = at));
  const rankOf = (merged: number) => rank[tree.name[from[merged]!]!]!;
  const children: number[][] = from.map(() => []);
  for (let merged = 1; merged < from.length; merged += 1) children[caller[merged]!]!.push(merged);
  const order: number[] = [];
  const depth: number[] = [];
  const pending = [0];
  const levels = [0];
  for (let merged = pending.pop(); merged !== undefined; merged = pending.pop()) {
    const level = levels.pop()!;
    order.push(merged);
    depth.push(level);
    // Last first, because the pile is taken from its top.
    const below = children[merged]!.sort((a, b) => rankOf(b) - rankOf(a) || b - a);
    for (const child of below) {
      pending.push(child);
      levels.push(level + 1);
    }
  }
  return { order, depth };
}

export function nameOf(tree: FlameTree, node: number): string {
  return tree.names[tree.name[node]!] ?? "?";
}

export function moduleOf(tree: FlameTree, node: number): string {
  return tree.modules[tree.module[node]!] ?? "";
}

/** Ancestors from the root down to the node itself. */
export function pathTo(tree: FlameTree, node: number): number[] {
  const path: number[] = [];
  for (let at = node; at >= 0; at = tree.parent[at]!) path.push(at);
  return path.reverse();
}

export function childrenOf(tree: FlameTree, node: number): number[] {
  const children: number[] = [];
  for (let at = node + 1; at < tree.end[node]!; at = tree.end[at]!) children.push(at);
  return children;
}

/** A path key as it appears in the address. */
export function writeKey(tree: FlameTree, node: number): string {
  return (tree.key[node]! >>> 0).toString(16).padStart(8, "0");
}

/** The node of a path key, or the root when it is gone from this answer. */
export function findKey(tree: FlameTree, written: string | null): number {
  if (written === null || !/^[0-9a-f]{1,8}$/.test(written)) return 0;
  const wanted = Number.parseInt(written, 16) | 0;
  return Math.max(0, tree.key.indexOf(wanted));
}
