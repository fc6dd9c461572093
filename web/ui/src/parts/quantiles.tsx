// Latency quantiles of two releases with their 95 % intervals: hollow dot for the baseline, filled for the candidate.
import { count, milliseconds, ratio, signed } from "../format";
import { isApart, quantileDelta, quantileName } from "../latency";
import type { LatencyEvidence, QuantilePair } from "../types";

/** Position on a shared axis, 0 to 100. */
function axisOf(pair: QuantilePair): (value: number) => number {
  const values = [
    pair.baseline_ms, pair.baseline_low_ms, pair.baseline_high_ms,
    pair.candidate_ms, pair.candidate_low_ms, pair.candidate_high_ms,
  ].filter((value) => value !== null);
  const low = Math.min(...values);
  const high = Math.max(...values);
  const pad = Math.max((high - low) * 0.08, high * 0.01, 1e-9);
  return (value) => ((value - low + pad) / (high - low + 2 * pad)) * 100;
}

/** One quantile as numbers over a small dot-and-interval plot. */
export function QuantileCard({ pair }: { pair: QuantilePair }) {
  const axis = axisOf(pair);
  const change = quantileDelta(pair);
  const tone = isApart(pair) ? ((change ?? 0) > 0 ? "more" : "less") : "";
  const line = (side: "baseline" | "candidate") => {
    const at = pair[`${side}_ms`];
    if (at === null) return null;
    const low = pair[`${side}_low_ms`] ?? at;
    const high = pair[`${side}_high_ms`] ?? at;
    return (
      <span class={`whisker whisker-${side}`} title={`${side} ${milliseconds(at)}, 95 % interval ${milliseconds(low)} to ${milliseconds(high)}`}>
        <i class="whisker-line" style={{ left: `${axis(low)}%`, width: `${Math.max(0.5, axis(high) - axis(low))}%` }} />
        <i class="whisker-dot" style={{ left: `${axis(at)}%` }} />
      </span>
    );
  };
  return (
    <div class="quantile">
      <div class="quantile-text">
        <b>{quantileName(pair.q)}</b>
        <span>
          <span class="soft">{milliseconds(pair.baseline_ms)} → </span>
          {milliseconds(pair.candidate_ms)}
        </span>
        <span class={`quantile-delta ${tone}`}>
          {signed(change, milliseconds)}
          {pair.baseline_ms !== null && pair.candidate_ms !== null && pair.baseline_ms > 0 && (
            <span class="soft"> {ratio(pair.candidate_ms / pair.baseline_ms)}</span>
          )}
        </span>
      </div>
      <div class="whiskers" aria-hidden="true">
        {line("baseline")}
        {line("candidate")}
      </div>
    </div>
  );
}

/** The same as a table, with the intervals in words. */
export function QuantileTable({ latency, baseline, candidate }: { latency: LatencyEvidence; baseline: string; candidate: string }) {
  const cell = (pair: QuantilePair, side: "baseline" | "candidate") => (
    <td class="number">
      {milliseconds(pair[`${side}_ms`])}{" "}
      {pair[`${side}_low_ms`] !== null && (
        <span class="soft">
          {milliseconds(pair[`${side}_low_ms`])} … {milliseconds(pair[`${side}_high_ms`])}
        </span>
      )}
    </td>
  );
  return (
    <div class="table-scroll" role="region" aria-label="Latency" tabIndex={0}>
      <table>
        <thead>
          <tr>
            <th scope="col">Latency</th>
            <th scope="col" class="number">
              {baseline} <span class="soft">n {count(latency.baseline_n)}</span>
            </th>
            <th scope="col" class="number">
              {candidate} <span class="soft">n {count(latency.candidate_n)}</span>
            </th>
            <th scope="col" class="number">Change</th>
          </tr>
        </thead>
        <tbody>
          {latency.quantiles.map((pair) => (
            <tr key={pair.q}>
              <th scope="row">{quantileName(pair.q)}</th>
              {cell(pair, "baseline")}
              {cell(pair, "candidate")}
              <td class={`number ${isApart(pair) ? ((quantileDelta(pair) ?? 0) > 0 ? "more" : "less") : ""}`}>{signed(quantileDelta(pair), milliseconds)}</td>
            </tr>
          ))}
        </tbody>
      </table>
    </div>
  );
}
