// The answer in one sentence, with how sure it is; below it the latency of the same requests.
import { glyphOf } from "../flame/palette";
import { nanoseconds, PER_WORDS, ratio, routeName, signed } from "../format";
import { QuantileCard } from "../parts/quantiles";
import { Sentence } from "../parts/sentence";
import { patch, url } from "../router";
import type { Diff } from "../types";

function judgementWords(diff: Diff): { mark: string; text: string; tone: string } {
  if (diff.judgement === "too_few_samples") return { mark: "?", text: "Too few samples to judge", tone: "unsure" };
  if (diff.judgement === "no_change") return { mark: "=", text: "No significant change", tone: "unsure" };
  const more = diff.change.delta > 0;
  return { mark: glyphOf(diff.change.delta) || "≠", text: more ? "Costs more" : "Costs less", tone: more ? "more" : "less" };
}

function pValue(p: number): string {
  return p < 0.001 ? "p < 0.001" : `p = ${p.toPrecision(2)}`;
}

export function Verdict({ diff }: { diff: Diff }) {
  const state = url.value;
  const judged = judgementWords(diff);
  const guilty = diff.functions.find((row) => row.id === diff.guilty);
  const { change } = diff;
  return (
    <section class={`verdict verdict-${judged.tone}`} aria-label="Verdict" data-judgement={diff.judgement}>
      <div class="verdict-mark">
        <span aria-hidden="true">{judged.mark}</span> {judged.text}
      </div>
      <p class="verdict-sentence">
        <Sentence text={diff.summary} />
      </p>
      <p class="verdict-detail">
        CPU {PER_WORDS[diff.per].short}: {nanoseconds(change.baseline)} → {nanoseconds(change.candidate)}, <b>{signed(change.delta)}</b>
        {change.ratio !== null && ` (${ratio(change.ratio)})`}, 95 % interval {signed(change.low)} … {signed(change.high)}, {pValue(change.p_value)}
        {guilty !== undefined && (
          <>
            {" · "}guilty function{" "}
            <button
              type="button"
              class="link mono"
              aria-pressed={state.pick === guilty.id}
              title={guilty.name}
              onClick={() => patch({ pick: guilty.id, show: "all" }, "replace")}
            >
              {guilty.name}
            </button>
          </>
        )}
      </p>
      {diff.judgement === "too_few_samples" && (
        <p class="verdict-detail">
          Widen the time range or wait for more windows. The numbers below are not marked as changes.
        </p>
      )}
      {diff.cost_shift !== null && (
        <p class="verdict-detail">
          <Sentence text={diff.cost_shift} />
        </p>
      )}
    </section>
  );
}

export function LatencyStrip({ diff }: { diff: Diff }) {
  const { latency } = diff;
  if (latency === null || latency.quantiles.length === 0) {
    return <p class="soft latency-none">No request latency for {diff.route === null ? "these routes" : routeName(diff.route)} in this range: none was reported.</p>;
  }
  return (
    <section class="latency" aria-label="Latency of the same requests">
      <div class="latency-head">
        <h2>Latency</h2>
        <span class="soft">
          {diff.route === null ? "all routes" : routeName(diff.route)}, server side
          <br />
          <i class="side-dot side-dot-baseline" aria-hidden="true" /> {diff.baseline.version} <i class="side-dot side-dot-candidate" aria-hidden="true" />{" "}
          {diff.candidate.version}
        </span>
      </div>
      {latency.quantiles.map((pair) => (
        <QuantileCard pair={pair} key={pair.q} />
      ))}
    </section>
  );
}
