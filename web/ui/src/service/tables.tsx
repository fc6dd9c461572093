// Releases and routes of a service as tables.
import { ago, count, milliseconds, MISSING, moment, NAMELESS, nanoseconds, NO_ROUTE, NO_ROUTE_TITLE, percent, rate, routeName, stretch } from "../format";
import { perOf } from "../compare/choose";
import { Link } from "../parts/link";
import { url } from "../router";
import type { ReleaseStats, RouteStats } from "../types";
import { elsewhere } from "../url";
import { groupRoutes } from "./routes";

export function ReleasesTable({ service, releases }: { service: string; releases: readonly ReleaseStats[] }) {
  const state = url.value;
  const scope = { service, namespace: state.namespace };
  return (
    <section class="panel" aria-label="Releases">
      <header class="panel-head">
        <h2>Releases</h2>
        <span class="soft">newest first</span>
      </header>
      <div class="table-scroll">
        <table>
          <thead>
            <tr>
              <th scope="col">Version</th>
              <th scope="col">First seen</th>
              <th scope="col" class="number">Requests</th>
              <th scope="col" class="number">Errors</th>
              <th scope="col" class="number">p50</th>
              <th scope="col" class="number">p95</th>
              <th scope="col" class="number">p99</th>
              <th scope="col" class="number">CPU per request</th>
              <th scope="col" class="number">Samples</th>
              <th scope="col" class="number" title="Share of the time covered by requests that stacks also cover; the cost per request is based on it">Covered</th>
              <th scope="col" title="Samples whose function has a name">Symbols</th>
              <th scope="col">Compare</th>
            </tr>
          </thead>
          <tbody>
            {releases.map((release, index) => {
              const previous = releases[index + 1];
              return (
                <tr key={release.version}>
                  <th scope="row">
                    <span class="version">{release.version}</span> {release.live && <span class="tag tag-live">live</span>}
                    <span class="soft small"> {release.instances.length > 1 ? `${release.instances.length} instances` : ""}</span>
                  </th>
                  <td title={moment(release.first_seen_ms)}>{ago(release.first_seen_ms)}</td>
                  <td class="number">{count(release.requests)}</td>
                  <td class="number">{percent(release.requests > 0 ? release.errors / release.requests : null)}</td>
                  <td class="number">{milliseconds(release.p50_ms)}</td>
                  <td class="number">{milliseconds(release.p95_ms)}</td>
                  <td class="number">{milliseconds(release.p99_ms)}</td>
                  <td class="number">{nanoseconds(release.cpu_ns_per_request)}</td>
                  <td class="number">{count(release.samples)}</td>
                  <td class="number">
                    {stretch(release.covered_s * 1000)} <span class="soft">of {stretch(release.requests_s * 1000)}</span>
                  </td>
                  <SymbolsCell release={release} />
                  <td>
                    {previous === undefined ? (
                      <span class="soft">first</span>
                    ) : (
                      <Link to={elsewhere(state, "compare", { ...scope, baseline: previous.version, candidate: release.version })}>
                        with {previous.version}
                      </Link>
                    )}
                  </td>
                </tr>
              );
            })}
          </tbody>
        </table>
      </div>
    </section>
  );
}

function SymbolsCell({ release }: { release: ReleaseStats }) {
  if (release.samples === 0) return <td>{MISSING}</td>;
  if (release.resolved_ratio >= 0.995) return <td>complete</td>;
  return <td title={NAMELESS}>{percent(release.resolved_ratio)}</td>;
}

export function RoutesTable({ service, routes, versions }: { service: string; routes: readonly RouteStats[]; versions: readonly string[] }) {
  const state = url.value;
  const hasProxy = routes.some((row) => row.component === "proxy");
  return (
    <section class="panel" aria-label="Routes">
      <header class="panel-head">
        <h2>Routes</h2>
        <span class="soft">server side, per version</span>
      </header>
      <div class="table-scroll">
        <table class="routes">
          <thead>
            <tr>
              <th scope="col">Route</th>
              <th scope="col">Version</th>
              {hasProxy && <th scope="col">Code of</th>}
              <th scope="col" class="number">Rate</th>
              <th scope="col" class="number">Errors</th>
              <th scope="col" class="number">p50</th>
              <th scope="col" class="number">p95</th>
              <th scope="col" class="number">p99</th>
              <th scope="col" class="number">CPU per request</th>
              <th scope="col" class="number">Requests</th>
              <th scope="col" class="number">Samples</th>
            </tr>
          </thead>
          <tbody>
            {groupRoutes(routes, versions).map((rows) =>
              rows.map((row, index) => (
                <tr key={`${row.route} ${row.version} ${row.component}`} class={index === 0 ? "group-start" : undefined}>
                  <th scope="row" class="mono">
                    {index === 0 ? (
                      <Link
                        to={elsewhere(state, "compare", { service, namespace: state.namespace, route: row.route, per: perOf(row.route, "request") })}
                        title={row.route === NO_ROUTE ? NO_ROUTE_TITLE : "Compare releases on this route"}
                      >
                        {routeName(row.route)}
                      </Link>
                    ) : (
                      <span class="unseen">{routeName(row.route)}</span>
                    )}
                  </th>
                  <td>
                    <span class="version">{row.version}</span>
                  </td>
                  {hasProxy && <td>{row.component}</td>}
                  <td class="number">{rate(row.route === NO_ROUTE ? null : row.rate)}</td>
                  <td class="number">{percent(row.requests > 0 ? row.error_ratio : null)}</td>
                  <td class="number">{milliseconds(row.p50_ms)}</td>
                  <td class="number">{milliseconds(row.p95_ms)}</td>
                  <td class="number">{milliseconds(row.p99_ms)}</td>
                  <td class="number">{nanoseconds(row.cpu_ns_per_request)}</td>
                  <td class="number">{count(row.requests)}</td>
                  <td class="number">{count(row.samples)}</td>
                </tr>
              )),
            )}
          </tbody>
        </table>
      </div>
    </section>
  );
}
