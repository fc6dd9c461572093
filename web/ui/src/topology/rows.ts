// Edges as sortable rows. A value nobody reported sorts below every reported one. Pure.
import type { TopoEdge, Topology } from "../types";
import { errorsOf, rateOf } from "./geometry";
import { endsOf, gap, nodeName } from "./words";

export type EdgeKey = "source" | "destination" | "rate" | "errors" | "p50" | "p99" | "gap";

export interface EdgeRow {
  edge: TopoEdge;
  source: string;
  destination: string;
  rate: number;
  errors: number;
  p50: number;
  p99: number;
  gap: number;
}

export function edgeRows(topology: Topology): EdgeRow[] {
  return topology.edges.map((edge) => {
    const { source, destination } = endsOf(topology, edge);
    const side = edge.server ?? edge.client;
    return {
      edge,
      source: nodeName(source),
      destination: nodeName(destination),
      rate: rateOf(edge),
      errors: errorsOf(edge),
      p50: side?.p50_ms ?? -1,
      p99: side?.p99_ms ?? -1,
      gap: gap(edge.client, edge.server, "p50_ms") ?? -Infinity,
    };
  });
}

export function sortRows(rows: readonly EdgeRow[], key: EdgeKey, descending: boolean): EdgeRow[] {
  const direction = descending ? -1 : 1;
  return [...rows].sort((a, b) => direction * (a[key] < b[key] ? -1 : a[key] > b[key] ? 1 : 0));
}
