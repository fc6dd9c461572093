// What is known about the selected release or edge, and where to go from it.
import { useEffect, useRef } from "preact/hooks";
import { count, milliseconds, nanoseconds, percent, rate } from "../format";
import { Link } from "../parts/link";
import { Sentence } from "../parts/sentence";
import { url } from "../router";
import type { Alert, EdgeSide, TopoEdge, TopoNode, Topology } from "../types";
import { elsewhere } from "../url";
import { flowOf } from "./geometry";
import { edgeName, endsOf, flowWords, gap, gapWords, nodeName, sideFacts } from "./words";

interface DrawerProps {
  topology: Topology;
  alerts: readonly Alert[];
  selected: string;
  onSelect(id: string | null): void;
}

export function Drawer({ topology, alerts, selected, onSelect }: DrawerProps) {
  const node = topology.nodes.find((candidate) => candidate.id === selected);
  const edge = topology.edges.find((candidate) => candidate.id === selected);
  const box = useRef<HTMLElement>(null);
  // On a narrow screen the drawer stands below the table, where nobody would look for it.
  useEffect(() => box.current?.scrollIntoView({ block: "nearest" }), [selected]);
  return (
    <aside class="panel drawer" aria-label="Selection" ref={box}>
      <button type="button" class="quiet drawer-close" aria-label="Close" onClick={() => onSelect(null)}>
        ×
      </button>
      {node !== undefined ? (
        <NodeDetail topology={topology} alerts={alerts} node={node} onSelect={onSelect} />
      ) : edge !== undefined ? (
        <EdgeDetail topology={topology} edge={edge} onSelect={onSelect} />
      ) : (
        <p>This link’s selection is not in the current range.</p>
      )}
    </aside>
  );
}

function NodeDetail({ topology, alerts, node, onSelect }: Omit<DrawerProps, "selected"> & { node: TopoNode }) {
  const state = url.value;
  const incoming = topology.edges.filter((edge) => edge.destination === node.id);
  const outgoing = topology.edges.filter((edge) => edge.source === node.id);
  const others = topology.nodes.filter((other) => other.service === node.service && other.namespace === node.namespace && other.version !== node.version);
  const own = alerts.filter((alert) => alert.service === node.service && alert.candidate === node.version && alert.state !== "resolved");
  return (
    <>
      <h2>
        {node.service} {node.version !== "" && <span class="version">{node.version}</span>}
      </h2>
      {node.namespace !== "" && <p class="soft">namespace {node.namespace}</p>}
      {own.map((alert) => (
        <p class="drawer-alert" key={alert.id}>
          <span aria-hidden="true">▲ </span>
          <Link to={elsewhere(state, "alerts", { alert: alert.id })}>
            <Sentence text={alert.sentence} />
          </Link>
        </p>
      ))}
      {node.kind === "external" ? (
        <>
          <p class="soft">Outside the mesh: it sends no identity, so only the other side of each call is known.</p>
          <dl class="facts">
            {flowWords(flowOf(topology.edges, node.id)).map(([name, value]) => (
              <Pair key={name} name={name} value={value} />
            ))}
          </dl>
        </>
      ) : (
        <>
          {node.kind === "destination" && <p class="soft">No proxy reports for it, or it is unreachable: all data and the name come from its callers.</p>}
          <dl class="facts">
            <Pair name="requests" value={count(node.requests)} />
            <Pair name="rate" value={rate(node.rate)} />
            <Pair name="errors" value={percent(node.error_ratio)} />
            <Pair name="p99" value={milliseconds(node.p99_ms)} />
            {node.kind === "service" && <Pair name="CPU per request" value={nanoseconds(node.cpu_ns_per_request)} />}
          </dl>
          <BothViews node={node} />
          {node.kind === "service" && (
            <p class="drawer-links">
            <Link to={elsewhere(state, "service", { service: node.service })}>Service page</Link>
            {others.map((other) => (
              <Link key={other.id} to={elsewhere(state, "compare", { service: node.service, baseline: other.version, candidate: node.version })}>
                Compare with {other.version}
              </Link>
            ))}
            </p>
          )}
        </>
      )}
      <EdgeList title="Called by" edges={incoming} topology={topology} end="source" onSelect={onSelect} />
      <EdgeList title="Calls" edges={outgoing} topology={topology} end="destination" onSelect={onSelect} />
    </>
  );
}

/** What a node reports beside what its callers report: a call that never arrived is in the second alone. */
function BothViews({ node }: { node: TopoNode }) {
  const { served, called } = node;
  if (served === null && called === null) return null;
  return (
    <div class="table-scroll" role="region" aria-label="Both views" tabIndex={0}>
      <table>
        <thead>
          <tr>
            <th scope="col">Both views</th>
            <th scope="col" class="number">Callers</th>
            <th scope="col" class="number">Itself</th>
          </tr>
        </thead>
        <tbody>
          {sideFacts([called, served]).map(([name, format]) => (
            <tr key={name}>
              <th scope="row">{name}</th>
              <SideCell side={called} format={format} />
              <SideCell side={served} format={format} />
            </tr>
          ))}
        </tbody>
      </table>
    </div>
  );
}

function SideCell({ side, format }: { side: EdgeSide | null; format(side: EdgeSide): string }) {
  return side === null ? <td class="number soft not-reported">not reported</td> : <td class="number">{format(side)}</td>;
}

interface EdgeListProps {
  title: string;
  edges: readonly TopoEdge[];
  topology: Topology;
  end: "source" | "destination";
  onSelect(id: string): void;
}

function EdgeList({ title, edges, topology, end, onSelect }: EdgeListProps) {
  if (edges.length === 0) return null;
  return (
    <>
      <h3>{title}</h3>
      <div class="table-scroll">
        <table>
          <thead>
            <tr>
              <th scope="col">Release</th>
              <th scope="col" class="number">Rate</th>
              <th scope="col" class="number">Errors</th>
              <th scope="col" class="number">p99</th>
            </tr>
          </thead>
          <tbody>
            {edges.map((edge) => {
              const side = edge.server ?? edge.client;
              return (
                <tr key={edge.id}>
                  <th scope="row">
                    <button type="button" class="link" onClick={() => onSelect(edge.id)}>
                      {nodeName(endsOf(topology, edge)[end])}
                    </button>
                  </th>
                  <td class="number">{rate(side?.rate)}</td>
                  <td class="number">{percent(side?.error_ratio)}</td>
                  <td class="number">{milliseconds(side?.p99_ms)}</td>
                </tr>
              );
            })}
          </tbody>
        </table>
      </div>
    </>
  );
}

function EdgeDetail({ topology, edge, onSelect }: { topology: Topology; edge: TopoEdge; onSelect(id: string): void }) {
  const { source, destination } = endsOf(topology, edge);
  const { client, server } = edge;
  const between: Record<string, string> = {
    requests: client !== null && server !== null ? count(client.requests - server.requests) : "",
    p50: gapWords(gap(client, server, "p50_ms")),
    p95: gapWords(gap(client, server, "p95_ms")),
    p99: gapWords(gap(client, server, "p99_ms")),
  };
  return (
    <>
      <h2>{edgeName(topology, edge)}</h2>
      <p class="soft">
        {edge.protocol === "" ? "protocol unknown" : edge.protocol}
        {" · "}
        <button type="button" class="link" onClick={() => source !== undefined && onSelect(source.id)}>
          {nodeName(source)}
        </button>
        {" · "}
        <button type="button" class="link" onClick={() => destination !== undefined && onSelect(destination.id)}>
          {nodeName(destination)}
        </button>
      </p>
      <div class="table-scroll" role="region" aria-label="Both sides" tabIndex={0}>
        <table>
          <thead>
            <tr>
              <th scope="col">Both sides</th>
              <th scope="col" class="number">Client</th>
              <th scope="col" class="number">Server</th>
              <th scope="col" class="number" title="Client minus server: network and proxies between them">Gap</th>
            </tr>
          </thead>
          <tbody>
            {sideFacts([client, server]).map(([name, format]) => (
              <tr key={name}>
                <th scope="row">{name}</th>
                <SideCell side={client} format={format} />
                <SideCell side={server} format={format} />
                <td class="number soft">{between[name] ?? ""}</td>
              </tr>
            ))}
          </tbody>
        </table>
      </div>
      <p class="soft small">The gap is time spent in the network and in the proxies between the two sides.</p>
      {edge.routes.length > 0 && (
        <>
          <h3>Routes</h3>
          <div class="table-scroll" role="region" aria-label="Routes" tabIndex={0}>
            <table>
              <thead>
                <tr>
                  <th scope="col">Route</th>
                  <th scope="col" class="number">Requests</th>
                  <th scope="col" class="number">Errors</th>
                  <th scope="col" class="number">p50</th>
                  <th scope="col" class="number">p99</th>
                </tr>
              </thead>
              <tbody>
                {edge.routes.map((route) => (
                  <tr key={route.route}>
                    <th scope="row" class="mono">{route.route}</th>
                    <td class="number">{count(route.requests)}</td>
                    <td class="number">{count(route.errors)}</td>
                    <td class="number">{milliseconds(route.p50_ms)}</td>
                    <td class="number">{milliseconds(route.p99_ms)}</td>
                  </tr>
                ))}
              </tbody>
            </table>
          </div>
        </>
      )}
    </>
  );
}

function Pair({ name, value }: { name: string; value: string }) {
  return (
    <div>
      <dt>{name}</dt>
      <dd>{value}</dd>
    </div>
  );
}
