// Page Status: what the server received, what it left out and why, and whether anything was lost.
import type { ComponentChildren } from "preact";
import { askStatus } from "../api";
import { useAnswer } from "../answer";
import { ago, bytes, count, MISSING, moment, plural } from "../format";
import { Failure, Skeleton } from "../parts/states";
import { Sentence } from "../parts/sentence";
import { countersIn, type Counter, lossesIn, type PortRow, portsIn, type NameTable, receivedIn, refusedIn, type RefusedMetric, tablesIn, type Target, targetsIn } from "../status";
import type { LossRow } from "../types";

export function StatusPage() {
  const answer = useAnswer(askStatus());
  const { data: status } = answer;
  if (status === null) return answer.error === null ? <Skeleton rows={10} label="Loading the status" /> : <Failure error={answer.error} onRetry={answer.retry} />;
  const counters = countersIn(status);
  const losses = lossesIn(status);
  return (
    <div class="status" data-ready={!answer.isStale}>
      <header class="page-head">
        <div>
          <h1>Status</h1>
          <p class="soft">
            Emberline {status.version}, {status.ready ? "ready" : "not ready"}, up since <span title={ago(status.started_ms)}>{moment(status.started_ms)}</span>
            {status.ready && losses.length === 0 && "; nothing was lost"}
          </p>
        </div>
      </header>
      {answer.error !== null && <Failure error={answer.error} onRetry={answer.retry} />}
      {status.not_ready_reason !== null && (
        <div class="notice notice-error" role="alert">
          <h2>Queries are unavailable</h2>
          <p>
            <Sentence text={status.not_ready_reason} />
          </p>
        </div>
      )}
      {losses.length > 0 && <Losses losses={losses} />}
      <LeftOut metrics={refusedIn(status, 200)} />
      <Received rows={receivedIn(status)} />
      <Targets targets={targetsIn(status)} />
      <Connections ports={portsIn(status)} />
      <Names tables={tablesIn(status)} />
      <Counters title="Store" note="since start-up" counters={counters.filter((counter) => counter.section === "store" && !counter.isLoss)} />
      <Counters title="Symbols" note="names for addresses" counters={counters.filter((counter) => counter.section === "symbols")} />
    </div>
  );
}

/** A table that may be wider than the screen; reached by the keyboard, too, as there may be nothing else in it to focus. */
function Scroll({ title, children }: { title: string; children: ComponentChildren }) {
  return (
    <div class="table-scroll" role="group" aria-label={`${title}, table`} tabIndex={0}>
      {children}
    </div>
  );
}

function Panel({ title, note, children }: { title: string; note: string; children: ComponentChildren }) {
  return (
    <section class="panel" aria-label={title}>
      <header class="panel-head">
        <h2>{title}</h2>
        <span class="soft">{note}</span>
      </header>
      {children}
    </section>
  );
}

function Losses({ losses }: { losses: readonly LossRow[] }) {
  return (
    <Panel title="Lost or damaged" note="since start-up; see the log for times">
      <Scroll title="Lost or damaged">
        <table>
          <thead>
            <tr>
              <th scope="col">What</th>
              <th scope="col" class="number">How many</th>
              <th scope="col">What to do</th>
            </tr>
          </thead>
          <tbody>
            {losses.map((loss) => (
              <tr key={loss.name}>
                <th scope="row" title={loss.name}>
                  <Sentence text={loss.help} />
                </th>
                <td class="number">{loss.unit === "bytes" ? bytes(loss.count) : count(loss.count)}</td>
                <td>
                  <Sentence text={loss.remedy} />
                </td>
              </tr>
            ))}
          </tbody>
        </table>
      </Scroll>
    </Panel>
  );
}

function LeftOut({ metrics }: { metrics: readonly RefusedMetric[] }) {
  if (metrics.length === 0) {
    return (
      <Panel title="Dropped" note="">
        <p class="panel-text">Everything received was stored unchanged.</p>
      </Panel>
    );
  }
  return (
    <Panel title="Dropped" note={`${plural(metrics.length, "kind")} of data, most recent first`}>
      <Scroll title="Dropped">
        <table>
          <thead>
            <tr>
              <th scope="col">Service</th>
              <th scope="col">What</th>
              <th scope="col" class="number">Points</th>
              <th scope="col">Why, and what to do</th>
            </tr>
          </thead>
          <tbody>
            {metrics.map((metric) => (
              <tr key={`${metric.service} ${metric.metric} ${metric.shape} ${metric.remedy}`}>
                <th scope="row">{metric.service || MISSING}</th>
                <td>
                  <code>{metric.metric}</code> <span class="soft">{metric.shape}</span>
                </td>
                <td class="number">{count(metric.points)}</td>
                <td>
                  <Sentence text={metric.remedy} />
                </td>
              </tr>
            ))}
          </tbody>
        </table>
      </Scroll>
    </Panel>
  );
}

function Received({ rows }: { rows: ReturnType<typeof receivedIn> }) {
  return (
    <Panel title="Received" note="since start-up; stored means on disk">
      <Scroll title="Received">
        <table>
          <thead>
            <tr>
              <th scope="col">Signal</th>
              <th scope="col" class="number">Stored</th>
              <th scope="col" class="number" title="Batches received more than once and stored once">Duplicates</th>
              <th scope="col" class="number">Bytes</th>
            </tr>
          </thead>
          <tbody>
            {rows.map((row) => (
              <tr key={row.signal}>
                <th scope="row">{row.signal}</th>
                <td class="number">{count(row.stored)}</td>
                <td class="number">{count(row.duplicate)}</td>
                <td class="number">{bytes(row.bytes)}</td>
              </tr>
            ))}
          </tbody>
        </table>
      </Scroll>
    </Panel>
  );
}

function Targets({ targets }: { targets: readonly Target[] }) {
  if (targets.length === 0) return null;
  const down = targets.filter((target) => target.state === "down").length;
  return (
    <Panel title="Scraped" note={down === 0 ? plural(targets.length, "profile") : `${down} of ${plural(targets.length, "profile")} down`}>
      <Scroll title="Scraped">
        <table>
          <thead>
            <tr>
              <th scope="col">Target</th>
              <th scope="col">Profile</th>
              <th scope="col">State</th>
              <th scope="col">Last</th>
              <th scope="col" class="number">Samples</th>
              <th scope="col">Error</th>
            </tr>
          </thead>
          <tbody>
            {targets.map((target) => (
              <tr key={`${target.job} ${target.address} ${target.profile}`}>
                <th scope="row">
                  <span class="soft">{target.job}</span> {target.address}
                </th>
                <td>{target.profile}</td>
                <td>{target.state}</td>
                <td>{target.last_scrape_unix_ms > 0 ? ago(target.last_scrape_unix_ms) : MISSING}</td>
                <td class="number">{count(target.samples)}</td>
                <td>{target.last_error || target.left_out || MISSING}</td>
              </tr>
            ))}
          </tbody>
        </table>
      </Scroll>
    </Panel>
  );
}

function Connections({ ports }: { ports: readonly PortRow[] }) {
  if (ports.length === 0) return null;
  return (
    <Panel title="Connections" note="refused and closed since start-up">
      <Scroll title="Connections">
        <table>
          <thead>
            <tr>
              <th scope="col">Port</th>
              <th scope="col" class="number">Open</th>
              <th scope="col">Refused or closed by the server</th>
            </tr>
          </thead>
          <tbody>
            {ports.map(({ port, open, reasons }) => (
              <tr key={port}>
                <th scope="row">{port}</th>
                <td class="number">{count(open)}</td>
                <td>{reasons.length === 0 ? MISSING : reasons.map(([reason, times]) => `${reason} ${count(times)}`).join(", ")}</td>
              </tr>
            ))}
          </tbody>
        </table>
      </Scroll>
    </Panel>
  );
}

function Names({ tables }: { tables: readonly NameTable[] }) {
  if (tables.length === 0) return null;
  return (
    <Panel title="Sender names" note={tables.some((table) => table.isFull) ? "full: new names from the largest users are refused or folded" : "below all limits"}>
      <Scroll title="Sender names">
        <table>
          <thead>
            <tr>
              <th scope="col">Table</th>
              <th scope="col" class="number">Used</th>
              <th scope="col" class="number">Limit</th>
              <th scope="col">Largest users</th>
              <th scope="col">Refused or folded</th>
            </tr>
          </thead>
          <tbody>
            {tables.map((table) => (
              <tr key={table.name}>
                <th scope="row">{table.name}</th>
                <td class="number">{count(table.used)}</td>
                <td class="number">{count(table.limit)}</td>
                <td>{table.largest || MISSING}</td>
                <td>{table.refused || MISSING}</td>
              </tr>
            ))}
          </tbody>
        </table>
      </Scroll>
    </Panel>
  );
}

function Counters({ title, note, counters }: { title: string; note: string; counters: readonly Counter[] }) {
  if (counters.length === 0) return null;
  return (
    <Panel title={title} note={note}>
      <dl class="counters panel-text">
        {counters.map(({ key, name, value }) => (
          <div key={key}>
            <dt>{name}</dt>
            <dd>{key.endsWith("_bytes") ? bytes(value) : count(value)}</dd>
          </div>
        ))}
      </dl>
    </Panel>
  );
}
