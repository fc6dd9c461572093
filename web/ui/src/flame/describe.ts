// A frame in words: for the status line that is read aloud, and for the tooltip. Pure.
import { count, nanoseconds, percent, PER_WORDS, ratio, signed } from "../format";
import { NodeKind, type Confidence, type FunctionRow, type Per } from "../types";
import type { Layout } from "./layout";
import { visibleSiblings } from "./navigate";
import { shareOfChange, type ChangeScale } from "./palette";
import { nameOf, type FlameTree } from "./tree";

export const CONFIDENCE_WORDS: Record<Confidence, string> = {
  strong: "significant",
  weak: "weak evidence",
  noise: "not significant",
  few: "too few samples",
};

/** What the status line says about a frame. */
export function statusOf(tree: FlameTree, layout: Layout, node: number, scale: ChangeScale, per: Per, isDiff: boolean): string {
  const unit = PER_WORDS[per].short;
  const siblings = visibleSiblings(tree, layout, node);
  const place = `depth ${tree.depth[node]}, ${siblings.indexOf(node) + 1} of ${siblings.length}`;
  const totalA = tree.totalA[node]!;
  const totalB = tree.totalB[node]!;
  if (!isDiff) return `${nameOf(tree, node)}: total ${nanoseconds(totalB)}, self ${nanoseconds(tree.selfB[node]!)} CPU ${unit}; ${place}`;
  const row = scale.functions[tree.fn[node]!];
  const confidence = row === undefined ? "" : `, ${CONFIDENCE_WORDS[row.confidence]}`;
  return (
    `${nameOf(tree, node)}: total ${nanoseconds(totalA)} to ${nanoseconds(totalB)} CPU ${unit} (${signed(totalB - totalA)}${confidence}); ` +
    `self ${nanoseconds(tree.selfA[node]!)} to ${nanoseconds(tree.selfB[node]!)}; ${place}`
  );
}

export interface TipRow {
  what: string;
  baseline: string;
  candidate: string;
  delta: string;
  ratio: string;
}

/** The numbers of the tooltip. */
export function tipRows(tree: FlameTree, node: number): TipRow[] {
  const row = (what: string, a: number, b: number): TipRow => ({
    what,
    baseline: nanoseconds(a),
    candidate: nanoseconds(b),
    delta: signed(b - a),
    ratio: ratio(a > 0 ? b / a : null),
  });
  return [row("total", tree.totalA[node]!, tree.totalB[node]!), row("self", tree.selfA[node]!, tree.selfB[node]!)];
}

/** Sentences under the numbers: share of the change, confidence, and what special frames are. */
export function tipNotes(tree: FlameTree, node: number, scale: ChangeScale, isDiff: boolean): string[] {
  const notes: string[] = [];
  const row: Pick<FunctionRow, "confidence" | "state"> | undefined = scale.functions[tree.fn[node]!];
  if (isDiff && row !== undefined) {
    const share = shareOfChange(tree.totalB[node]! - tree.totalA[node]!, scale);
    notes.push(`${percent(share)} of the change passes through here; the function is ${CONFIDENCE_WORDS[row.confidence]}`);
    if (row.state === "new") notes.push("New: not seen in the baseline");
    if (row.state === "gone") notes.push("Gone: not seen in the candidate");
  }
  if (tree.kind[node] === NodeKind.unresolved) notes.push("Waiting for symbols: this address has no name yet");
  if (tree.kind[node] === NodeKind.cut) notes.push("Frames too small to show individually; their time is included");
  if (tree.kind[node] === NodeKind.library) notes.push("Library function");
  return notes;
}

/** "12 frames, 34.1 % of the width". */
export function matchWords(found: number, share: number): string {
  if (found === 0) return "no frame matches";
  return `${count(found)} ${found === 1 ? "frame" : "frames"}, ${percent(share)} of the width`;
}
