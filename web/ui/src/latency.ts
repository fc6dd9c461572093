// Reading quantiles of two releases. Pure.
import type { QuantilePair } from "./types";

export function quantileName(q: number): string {
  return `p${Number((q * 100).toFixed(3))}`;
}

/** True when the intervals do not touch. */
export function isApart(pair: QuantilePair): boolean {
  const { baseline_low_ms: aLow, baseline_high_ms: aHigh, candidate_low_ms: bLow, candidate_high_ms: bHigh } = pair;
  if (aLow === null || aHigh === null || bLow === null || bHigh === null) return false;
  return bLow > aHigh || bHigh < aLow;
}

/** Candidate minus baseline; null unless both are known. */
export function quantileDelta(pair: QuantilePair): number | null {
  return pair.baseline_ms === null || pair.candidate_ms === null ? null : pair.candidate_ms - pair.baseline_ms;
}
