// Page Topology: which release calls which, how much, how fast, and what both sides say about it.
import { askAlerts, askTopology } from "../api";
import { useAnswer } from "../answer";
import { moment, plural } from "../format";
import { Choice } from "../parts/choice";
import { Failure, Skeleton, Waiting } from "../parts/states";
import { patch, url } from "../router";
import { Drawer } from "../topology/drawer";
import { TopologyMap } from "../topology/map";
import { TopologyTable } from "../topology/table";
import type { TopoNode } from "../types";
import { elsewhere } from "../url";

/** Narrower than this many pixels, a map shows two cards at best. */
const NARROW = 720;

export function TopologyPage() {
  const state = url.value;
  const answer = useAnswer(askTopology(state));
  const alerts = useAnswer(askAlerts("all"));
  const topology = answer.data;
  const as = state.as !== "auto" ? state.as : innerWidth < NARROW ? "table" : "map";
  const select = (id: string | null) => patch({ select: id }, state.select === null ? "push" : "replace");

  if (topology === null) {
    return answer.error === null ? <Skeleton rows={12} label="Loading the map" /> : <Failure error={answer.error} onRetry={answer.retry} />;
  }
  if (topology.nodes.length === 0) return <Waiting />;
  const releases = topology.nodes.filter((node) => node.kind === "service");
  const services = new Set(releases.map((node) => `${node.namespace}/${node.service}`));
  const alertOf = (node: TopoNode) => {
    const own = alerts.data?.alerts.find((alert) => alert.service === node.service && alert.candidate === node.version && alert.state !== "resolved");
    return elsewhere(state, "alerts", own === undefined ? { service: node.service } : { alert: own.id });
  };
  return (
    <div class={`topology${answer.isStale ? " is-stale" : ""}`} data-ready={!answer.isStale}>
      <header class="page-head">
        <div>
          <h1>Topology</h1>
          <p class="soft">
            {plural(services.size, "service")}, {plural(releases.length, "release")}, {plural(topology.edges.length, "edge")} between{" "}
            {moment(topology.from_ms)} and {moment(topology.to_ms)}
            {topology.left_out > 0 && `. ${plural(topology.left_out, "more service")} reported for a shorter time and are not shown`}
            {!topology.complete && ". Some windows in this range have not arrived yet"}
          </p>
        </div>
        <Choice
          label="Show as"
          value={as}
          options={[
            ["map", "map"],
            ["table", "table"],
          ]}
          onChange={(as) => patch({ as })}
        />
      </header>
      {answer.error !== null && <Failure error={answer.error} onRetry={answer.retry} />}
      <div class={`topology-body${state.select === null ? "" : " has-drawer"}`}>
        {as === "map" ? (
          <div class="map-side">
            <TopologyMap topology={topology} selected={state.select} service={state.service} alertOf={alertOf} onSelect={select} />
            <MapLegend />
          </div>
        ) : (
          <TopologyTable topology={topology} selected={state.select} onSelect={select} />
        )}
        {state.select !== null && <Drawer topology={topology} alerts={alerts.data?.alerts ?? []} selected={state.select} onSelect={select} />}
      </div>
    </div>
  );
}

function MapLegend() {
  return (
    <div class="legend" role="group" aria-label="Legend of the map">
      <span class="legend-item">
        <svg width="34" height="10" aria-hidden="true">
          <path d="M0 5h34" class="edge-line" stroke-width="1.25" />
        </svg>
        few requests
      </span>
      <span class="legend-item">
        <svg width="34" height="10" aria-hidden="true">
          <path d="M0 5h34" class="edge-line" stroke-width="5" />
        </svg>
        many
      </span>
      <span class="legend-item">
        <svg width="34" height="10" aria-hidden="true">
          <g class="edge is-failing">
            <path d="M0 5h34" class="edge-line" stroke-width="3" />
          </g>
        </svg>
        1 % errors or more
      </span>
      <span class="legend-item">
        <svg width="34" height="10" aria-hidden="true">
          <g class="edge is-partial">
            <path d="M0 5h34" class="edge-line" stroke-width="3" />
          </g>
        </svg>
        one side not reported
      </span>
      <span class="legend-item">
        <b class="card-alert">▲</b> has an alert
      </span>
    </div>
  );
}
