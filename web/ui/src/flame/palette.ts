// What a frame's colour means: its signed share of the total change. Blue costs less, orange costs more, grey is not
// significant, violet with a hatch is new. Never colour alone: labels carry a glyph and a sign. Pure.
// The palettes are tested against simulated colour blindness and for label contrast (tests/palette.test.ts).
import { NodeKind, type Confidence, type FunctionRow } from "../types";
import type { EffectiveTheme } from "../theme";
import type { FlameTree } from "./tree";

export interface Palette {
  less: string;
  same: string;
  more: string;
  fresh: string;
  unsure: string;
  /** Two tones without meaning, for one release alone. */
  solo: [string, string];
  text: string;
  smear: string;
  gap: string;
  cursor: string;
  hatch: string;
}

export const PALETTES: Record<EffectiveTheme, Palette> = {
  light: {
    less: "#5aa2e0",
    same: "#e9e7e2",
    more: "#f0863c",
    fresh: "#b48be0",
    unsure: "#d9dbdf",
    solo: ["#e6dfcd", "#dad2bd"],
    text: "#111111",
    smear: "#c4c3bf",
    gap: "#ffffff",
    cursor: "#111111",
    hatch: "rgba(17,17,17,0.28)",
  },
  dark: {
    less: "#1f6ab3",
    same: "#2f3238",
    more: "#b35408",
    fresh: "#7446ab",
    unsure: "#45494f",
    solo: ["#403c33", "#4b463b"],
    text: "#ffffff",
    smear: "#3a3e45",
    gap: "#17191d",
    cursor: "#ffffff",
    hatch: "rgba(255,255,255,0.28)",
  },
  // System colours: the glyphs, the hatch and the outlines carry the meaning.
  forced: {
    less: "Canvas",
    same: "Canvas",
    more: "Canvas",
    fresh: "Canvas",
    unsure: "Canvas",
    solo: ["Canvas", "Canvas"],
    text: "CanvasText",
    smear: "GrayText",
    gap: "CanvasText",
    cursor: "Highlight",
    hatch: "CanvasText",
  },
};

/** Steps from "same" to either end. */
export const STEPS = 16;

/** Colour classes: 0..STEPS-1 less, STEPS same, STEPS+1..2*STEPS more, then these. */
export const Shade = { same: STEPS, unsure: 2 * STEPS + 1, fresh: 2 * STEPS + 2, smear: 2 * STEPS + 3, solo: 2 * STEPS + 4 } as const;

/** Everything needed to colour one tree. */
export interface ChangeScale {
  /** The change that counts as 100 %. */
  full: number;
  functions: readonly Pick<FunctionRow, "confidence" | "state">[];
  /** False when the comparison as a whole found nothing it would stand by. */
  isJudged: boolean;
}

/** A total change below this share of the cost would blow noise up to full colour. */
const SMALLEST_SCALE = 0.05;

/** The change that gets full colour: the total change, or 5 % of the larger cost when the total hardly changed. */
export function fullChange(baseline: number, candidate: number): number {
  return Math.max(Math.abs(candidate - baseline), SMALLEST_SCALE * Math.max(baseline, candidate), Number.MIN_VALUE);
}

export function isSignificant(confidence: Confidence): boolean {
  return confidence === "strong" || confidence === "weak";
}

/** A node's signed share of the total change, clamped to [-1, 1]. */
export function shareOfChange(delta: number, scale: ChangeScale): number {
  return Math.max(-1, Math.min(1, delta / scale.full));
}

/** The colour class of a node. */
export function shadeOf(tree: FlameTree, node: number, scale: ChangeScale): number {
  const row = scale.functions[tree.fn[node]!];
  const share = shareOfChange(tree.totalB[node]! - tree.totalA[node]!, scale);
  if (row === undefined) {
    // The root and cut nodes have no row: the root speaks for the whole comparison, a cut node for nothing.
    return tree.kind[node] === NodeKind.root && scale.isJudged ? shadeOfShare(share) : Shade.unsure;
  }
  if (!isSignificant(row.confidence)) return Shade.unsure;
  if (row.state === "new" && tree.totalA[node] === 0) return Shade.fresh;
  return shadeOfShare(share);
}

export function shadeOfShare(share: number): number {
  // Square root: a tenth of the change is still visibly tinted, and the order of shares is kept.
  return STEPS + Math.sign(share) * Math.round(Math.sqrt(Math.abs(share)) * STEPS);
}

/** One fill per colour class. */
export function fillsOf(palette: Palette): string[] {
  const fills: string[] = [];
  for (let step = -STEPS; step <= STEPS; step += 1) {
    const end = step < 0 ? palette.less : palette.more;
    fills.push(palette.same.startsWith("#") ? mix(palette.same, end, Math.abs(step) / STEPS) : palette.same);
  }
  fills.push(palette.unsure, palette.fresh, palette.smear, ...palette.solo);
  return fills;
}

/** A colour between two `#rrggbb`. */
export function mix(from: string, to: string, amount: number): string {
  const channel = (at: number) => {
    const a = Number.parseInt(from.slice(at, at + 2), 16);
    const b = Number.parseInt(to.slice(at, at + 2), 16);
    return Math.round(a + (b - a) * amount)
      .toString(16)
      .padStart(2, "0");
  };
  return `#${channel(1)}${channel(3)}${channel(5)}`;
}

/** The sign of a change as a shape. */
export function glyphOf(delta: number): "▲" | "▼" | "" {
  return delta > 0 ? "▲" : delta < 0 ? "▼" : "";
}
