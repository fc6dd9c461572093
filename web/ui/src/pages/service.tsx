// Page Service: its releases, its routes, how both moved over time, and its alerts.
import { useEffect, useMemo } from "preact/hooks";
import { AlertCard } from "../alerts/card";
import { askService } from "../api";
import { useAnswer } from "../answer";
import { chooseService, namespaceIfNeeded } from "../compare/choose";
import { milliseconds, nanoseconds, plural, rate } from "../format";
import { Failure, Skeleton, Waiting } from "../parts/states";
import { lastService, patch, url } from "../router";
import { Chart, lineStyle } from "../service/chart";
import { routeCount } from "../service/routes";
import { align, requestsPerSecond, type Value } from "../service/series";
import { ReleasesTable, RoutesTable } from "../service/tables";
import { services } from "../services";
import type { ServicePage as Answer } from "../types";

export function ServicePage() {
  const state = url.value;
  const known = services.value;
  useEffect(() => {
    if (state.service !== null || known === null) return;
    const chosen = chooseService(known);
    const next = lastService.value ?? (chosen === null ? null : { service: chosen.service, namespace: namespaceIfNeeded(known, chosen) });
    if (next !== null) patch(next, "replace");
  }, [state.service, known]);
  if (state.service === null) return known !== null && known.length === 0 ? <Waiting /> : <Skeleton rows={10} />;
  return <OneService key={`${state.namespace}/${state.service}`} />;
}

function OneService() {
  const answer = useAnswer(askService(url.value));
  const { data } = answer;
  if (data === null) return answer.error === null ? <Skeleton rows={12} label="Loading the service" /> : <Failure error={answer.error} onRetry={answer.retry} />;
  const open = data.alerts.filter((alert) => alert.state !== "resolved");
  const versions = data.releases.map((release) => release.version);
  return (
    <div class={`service${answer.isStale ? " is-stale" : ""}`} data-ready={!answer.isStale}>
      <header class="page-head">
        <div>
          <h1>{data.service}</h1>
          <p class="soft">
            {data.namespace !== "" && `namespace ${data.namespace}, `}
            {plural(data.releases.length, "release")}, {plural(routeCount(data.routes), "route")}
          </p>
        </div>
      </header>
      {answer.error !== null && <Failure error={answer.error} onRetry={answer.retry} />}
      {open.map((alert) => (
        <AlertCard alert={alert} key={alert.id} isOpen={false} />
      ))}
      <Charts data={data} versions={versions} />
      <ReleasesTable service={data.service} releases={data.releases} />
      <RoutesTable service={data.service} routes={data.routes} versions={versions} />
      {data.alerts.length > open.length && (
        <section aria-label="Resolved alerts">
          <h2>Resolved alerts</h2>
          {data.alerts
            .filter((alert) => alert.state === "resolved")
            .map((alert) => (
              <AlertCard alert={alert} key={alert.id} isOpen={false} />
            ))}
        </section>
      )}
    </div>
  );
}

/** More lines than this cannot be told apart; older releases are in the table. */
const MOST_LINES = 5;

function Charts({ data, versions }: { data: Answer; versions: string[] }) {
  const drawn = versions.slice(0, MOST_LINES);
  const charts = useMemo(
    () =>
      [
        ["Requests per second", requestsPerSecond, rate],
        ["Latency p50", (point) => point.p50_ms, milliseconds],
        ["Latency p99", (point) => point.p99_ms, milliseconds],
        ["CPU per request", (point) => point.cpu_ns_per_request, nanoseconds],
      ] satisfies [string, Value, (value: number) => string][],
    [],
  );
  const series = useMemo(() => charts.map(([, value]) => align(data.series, drawn, data.step_s, value)), [data, drawn.join("\n")]);
  if (data.series.length === 0) return <p class="soft">No windows in this range yet.</p>;
  return (
    <section class="panel charts" aria-label="Over time">
      <header class="panel-head">
        <h2>Over time</h2>
        <span class="chart-keys">
          {drawn.map((version, index) => (
            <span key={version} class="legend-item">
              <svg width="26" height="8" aria-hidden="true">
                <path d="M0 4h26" stroke={lineStyle(index).stroke} stroke-width={lineStyle(index).width} stroke-dasharray={lineStyle(index).dash.join(" ")} />
              </svg>
              {version}
            </span>
          ))}
          {versions.length > drawn.length && <span class="soft">the newest {drawn.length} releases</span>}
        </span>
      </header>
      <div class="chart-grid">
        {charts.map(([title, , format], index) => (
          <Chart key={title} title={title} series={series[index]!} format={format} />
        ))}
      </div>
    </section>
  );
}
