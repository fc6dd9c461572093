// One alert with its evidence: what got slower, since when, by how much, in which function, and how sure that is.
import { useState } from "preact/hooks";
import { ago, changeShare, milliseconds, moment, nanoseconds, releaseName, shortName, signed, stretch } from "../format";
import { CONFIDENCE_WORDS } from "../flame/describe";
import { Link } from "../parts/link";
import { quantileName } from "../latency";
import { QuantileTable } from "../parts/quantiles";
import { Sentence } from "../parts/sentence";
import type { Alert } from "../types";
import { decodePath } from "../url";
import { evidenceWords, modeWords, splitWords, STATE_MARKS, STATE_WORDS } from "./words";

export function AlertCard({ alert, isOpen: isOpenAtFirst }: { alert: Alert; isOpen: boolean }) {
  const [isOpen, setOpen] = useState(isOpenAtFirst);
  const diff = decodePath(alert.diff_url);
  const bodyId = `alert-${alert.id.replaceAll(/[^\w-]/g, "_")}`;
  return (
    <article class={`panel alert alert-${alert.state}`} data-alert={alert.id} data-state={alert.state}>
      <header class="alert-head">
        <span class={`alert-state state-${alert.state}`}>
          <span aria-hidden="true">{STATE_MARKS[alert.state]} </span>
          {STATE_WORDS[alert.state]}
        </span>
        <div class="alert-title">
          <h2>
            <Sentence text={alert.sentence} />
          </h2>
          <p class="soft">
            {releaseName(alert.service, alert.baseline)} → {releaseName(alert.service, alert.candidate)} on <code>{alert.route}</code>
            {alert.source === null ? ", all callers" : `, called by ${alert.source}`} · since {moment(alert.started_ms)} ({ago(alert.started_ms)})
            {alert.resolved_ms !== null && `, resolved after ${stretch(alert.resolved_ms - alert.started_ms)}`}
          </p>
        </div>
        <div class="alert-actions">
          {diff !== null && (
            <Link to={diff} class="button button-strong">
              {alert.kind === "errors" ? "Open the service" : "Open the comparison"}
            </Link>
          )}
          <button type="button" class="quiet" aria-expanded={isOpen} aria-controls={bodyId} onClick={() => setOpen(!isOpen)}>
            {isOpen ? "Less" : "Evidence"}
          </button>
        </div>
      </header>
      <div class="alert-facts">
        {alert.function !== null && (
          <div class="alert-function">
            <span class="soft">Guilty function</span>
            <b class="mono" title={alert.function.name}>
              {shortName(alert.function.name, 2)}
            </b>
            {alert.function.callee !== null && (
              <span class="soft">
                in <span class="mono">{shortName(alert.function.callee, 2)}</span>
              </span>
            )}
            <span>
              <span class="more">
                <span aria-hidden="true">▲ </span>
                {signed(alert.function.delta_ns_per_request)} CPU per request
              </span>
              <span class="soft">, {changeShare(alert.function.share)} of the change</span>
            </span>
          </div>
        )}
        {alert.latency.quantiles.map((pair) => (
          <div key={pair.q}>
            <span class="soft">{quantileName(pair.q)}</span>
            <b>
              {milliseconds(pair.baseline_ms)} → {milliseconds(pair.candidate_ms)}
            </b>
            <span class="soft">
              {pair.baseline_ms !== null && pair.candidate_ms !== null ? signed(pair.candidate_ms - pair.baseline_ms, milliseconds) : ""}
            </span>
          </div>
        ))}
      </div>
      {isOpen && (
        <div id={bodyId} class="alert-body">
          <QuantileTable latency={alert.latency} baseline={alert.baseline} candidate={alert.candidate} />
          {alert.functions.length > 0 && <TopFunctions alert={alert} />}
          {alert.kind !== "errors" && <p>{splitWords(alert.client_server)}</p>}
          <p>{evidenceWords(alert)}</p>
          <p>{modeWords(alert.mode)}</p>
          {alert.folded.length > 0 && (
            <>
              <h3>Also slower because of this</h3>
              <ul>
                {alert.folded.map((what) => (
                  <li key={what}>
                    <Sentence text={what} />
                  </li>
                ))}
              </ul>
            </>
          )}
          {alert.ended_reason !== null && <p class="soft">It ended because {alert.ended_reason}.</p>}
          {alert.suppressed_reason !== null && <p class="soft">No notification was sent: {alert.suppressed_reason}</p>}
        </div>
      )}
    </article>
  );
}

function TopFunctions({ alert }: { alert: Alert }) {
  return (
    <div class="table-scroll" role="region" aria-label="Functions that changed most" tabIndex={0}>
      <table>
        <thead>
          <tr>
            <th scope="col">Changed most, CPU per request</th>
            <th scope="col" class="number">Self</th>
            <th scope="col" class="number">Total</th>
            <th scope="col" class="number">Change</th>
            <th scope="col">Evidence</th>
          </tr>
        </thead>
        <tbody>
          {alert.functions.slice(0, 8).map((row) => (
            <tr key={row.id}>
              <th scope="row" class="mono" title={row.name}>
                {shortName(row.name, 2)}
                {row.id === alert.function?.id && <span class="tag tag-guilty">guilty</span>}
              </th>
              <td class="number">
                {nanoseconds(row.self_a)} → {nanoseconds(row.self_b)}
              </td>
              <td class="number">
                {nanoseconds(row.total_a)} → {nanoseconds(row.total_b)}
              </td>
              <td class="number">{signed(row.delta_total)}</td>
              <td>{CONFIDENCE_WORDS[row.confidence]}</td>
            </tr>
          ))}
        </tbody>
      </table>
    </div>
  );
}
