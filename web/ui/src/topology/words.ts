// Nodes, edges and gaps between sides in words. Pure.
import { bytes, count, milliseconds, percent, rate, releaseName, seconds, signed } from "../format";
import type { EdgeSide, TopoEdge, TopoNode, Topology } from "../types";
import { flowOf } from "./geometry";

export function nodeName(node: Pick<TopoNode, "service" | "version" | "kind"> | undefined): string {
  if (node === undefined) return "unknown";
  return releaseName(node.service, node.version);
}

export function endsOf(topology: Pick<Topology, "nodes">, edge: TopoEdge): { source: TopoNode | undefined; destination: TopoNode | undefined } {
  return {
    source: topology.nodes.find((node) => node.id === edge.source),
    destination: topology.nodes.find((node) => node.id === edge.destination),
  };
}

export function edgeName(topology: Pick<Topology, "nodes">, edge: TopoEdge): string {
  const { source, destination } = endsOf(topology, edge);
  return `${nodeName(source)} → ${nodeName(destination)}`;
}

/** What the map says on hover, and assistive technology reads. */
export function edgeSummary(edge: TopoEdge): string {
  const side = edge.server ?? edge.client;
  if (side === null) return "not reported by either side";
  const reporter = edge.server === null ? ", client side only" : edge.client === null ? ", server side only" : "";
  const open = side.open > 0 ? `, ${count(side.open)} open` : "";
  return `${rate(side.rate)}, ${percent(side.error_ratio)} errors, p99 ${milliseconds(side.p99_ms)}${open}${reporter}`;
}

/** Facts of one side of an edge or a card. What is usually nothing is said only when it is something. */
export function sideFacts(sides: readonly (EdgeSide | null)[]): [string, (side: EdgeSide) => string][] {
  const has = (read: (side: EdgeSide) => number) => sides.some((side) => side !== null && read(side) > 0);
  const facts: [string, (side: EdgeSide) => string, boolean][] = [
    ["requests", (side) => count(side.requests), true],
    ["rate", (side) => rate(side.rate), true],
    ["errors", (side) => `${count(side.errors)} (${percent(side.error_ratio)})`, true],
    ["abandoned", (side) => count(side.given_up), has((side) => side.given_up)],
    ["open now", (side) => count(side.open), has((side) => side.open)],
    ["streamed", (side) => seconds(side.streaming_seconds), has((side) => side.streaming_seconds)],
    ["sent", (side) => bytes(side.request_bytes), has((side) => side.request_bytes)],
    ["received", (side) => bytes(side.response_bytes), has((side) => side.response_bytes)],
    ["p50", (side) => milliseconds(side.p50_ms), true],
    ["p95", (side) => milliseconds(side.p95_ms), true],
    ["p99", (side) => milliseconds(side.p99_ms), true],
  ];
  return facts.filter(([, , isSaid]) => isSaid).map(([name, format]) => [name, format]);
}

/** What goes from outside into the mesh, and out of it. */
export function flowWords(flow: { out: number; in: number }): [string, string][] {
  const pairs: [string, number][] = [["sends", flow.out], ["receives", flow.in]];
  return pairs.filter(([, value]) => value > 0).map(([name, value]) => [name, rate(value)]);
}

export function nodeSummary(node: TopoNode, edges: readonly TopoEdge[]): string {
  if (node.kind === "external") {
    return [`${nodeName(node)}: outside the mesh`, ...flowWords(flowOf(edges, node.id)).map((pair) => pair.join(" "))].join(", ");
  }
  const what = node.kind === "destination" ? ", reported by its callers only" : "";
  return `${nodeName(node)}${what}: ${rate(node.rate)}, ${percent(node.error_ratio)} errors, p99 ${milliseconds(node.p99_ms)}${node.alert ? ", has an alert" : ""}`;
}

/** Client minus server: time spent in the network and the proxies between. Null unless both reported. */
export function gap(client: EdgeSide | null, server: EdgeSide | null, quantile: "p50_ms" | "p95_ms" | "p99_ms"): number | null {
  const [a, b] = [client?.[quantile] ?? null, server?.[quantile] ?? null];
  return a === null || b === null ? null : a - b;
}

export function gapWords(value: number | null): string {
  return value === null ? "unknown" : signed(value, milliseconds);
}
