// From the server's layers and rows to pixels: card places, edge curves, what is drawn when there is too much. Pure.
// On purpose: curves may pass behind cards when an edge skips a layer; they are drawn under the cards.
import type { TopoEdge, TopoNode, Topology } from "../types";

export const CARD = { width: 214, height: 104, gapX: 132, gapY: 30, margin: 28 } as const;

/** More than this is neither readable nor quick; the table holds the rest. */
export const BUDGET = { nodes: 60, edges: 150 } as const;

export interface Place {
  left: number;
  top: number;
}

export interface Curve {
  edge: TopoEdge;
  path: string;
  /** Triangle at the destination. */
  head: string;
  width: number;
  isFailing: boolean;
  label: Place;
}

export interface Picture {
  nodes: TopoNode[];
  places: Map<string, Place>;
  curves: Curve[];
  width: number;
  height: number;
  /** How much the budget left out. */
  hiddenNodes: number;
  hiddenEdges: number;
}

/** An edge is drawn dashed from this share of errors on. */
export const FAILING = 0.01;

export function errorsOf(edge: TopoEdge): number {
  return (edge.server ?? edge.client)?.error_ratio ?? 0;
}

export function rateOf(edge: TopoEdge): number {
  return (edge.server ?? edge.client)?.rate ?? 0;
}

/** Requests per second out of a node and into it, as the side of each edge that reported counted them. */
export function flowOf(edges: readonly TopoEdge[], id: string): { out: number; in: number } {
  const sum = (end: "source" | "destination") => edges.reduce((total, edge) => total + (edge[end] === id ? rateOf(edge) : 0), 0);
  return { out: sum("source"), in: sum("destination") };
}

/** The busiest nodes and edges within the budget; nodes with alerts always stay. */
export function withinBudget(topology: Pick<Topology, "nodes" | "edges">): { nodes: TopoNode[]; edges: TopoEdge[] } {
  // What lies outside the mesh reports no rate of its own: its edges tell.
  const outside = new Map(topology.nodes.filter((node) => node.kind === "external").map(({ id }) => [id, flowOf(topology.edges, id)]));
  const weight = (node: TopoNode) => {
    const flow = outside.get(node.id);
    return flow === undefined ? node.rate : flow.out + flow.in;
  };
  const byWeight = [...topology.nodes].sort((a, b) => Number(b.alert) - Number(a.alert) || weight(b) - weight(a));
  const kept = new Set(byWeight.slice(0, BUDGET.nodes).map((node) => node.id));
  const edges = topology.edges.filter((edge) => kept.has(edge.source) && kept.has(edge.destination)).sort((a, b) => rateOf(b) - rateOf(a));
  return { nodes: topology.nodes.filter((node) => kept.has(node.id)), edges: edges.slice(0, BUDGET.edges) };
}

export function picture(topology: Pick<Topology, "nodes" | "edges">): Picture {
  const { nodes, edges } = withinBudget(topology);
  const left = Math.min(0, ...nodes.map((node) => node.x));
  const top = Math.min(0, ...nodes.map((node) => node.y));
  const places = new Map<string, Place>();
  let width = 0;
  let height = 0;
  for (const node of nodes) {
    const place = {
      left: CARD.margin + (node.x - left) * (CARD.width + CARD.gapX),
      top: CARD.margin + (node.y - top) * (CARD.height + CARD.gapY),
    };
    places.set(node.id, place);
    width = Math.max(width, place.left + CARD.width + CARD.margin);
    height = Math.max(height, place.top + CARD.height + CARD.margin);
  }
  return {
    nodes,
    places,
    curves: curvesOf(edges, places),
    width,
    height,
    hiddenNodes: topology.nodes.length - nodes.length,
    hiddenEdges: topology.edges.length - edges.length,
  };
}

function curvesOf(edges: readonly TopoEdge[], places: ReadonlyMap<string, Place>): Curve[] {
  const busiest = Math.max(...edges.map(rateOf), 1e-9);
  const topOf = (id: string) => places.get(id)?.top ?? 0;
  // Ends are spread along the side of a card in the order of where they lead, so that curves do not cross at the card.
  const slot = (ends: TopoEdge[], edge: TopoEdge) => ((ends.indexOf(edge) + 1) / (ends.length + 1)) * CARD.height;
  const leaving = groupBy(edges, (edge) => edge.source, (a, b) => topOf(a.destination) - topOf(b.destination));
  const arriving = groupBy(edges, (edge) => edge.destination, (a, b) => topOf(a.source) - topOf(b.source));
  const curves: Curve[] = [];
  for (const edge of edges) {
    const from = places.get(edge.source);
    const to = places.get(edge.destination);
    if (from === undefined || to === undefined) continue;
    const x1 = from.left + CARD.width;
    const y1 = from.top + slot(leaving.get(edge.source)!, edge);
    const x2 = to.left - 7;
    const y2 = to.top + slot(arriving.get(edge.destination)!, edge);
    const isForward = x2 > x1;
    const reach = isForward ? Math.max(36, (x2 - x1) / 2) : CARD.gapX * 0.75;
    // A call back to an earlier layer, or to itself, bows below both cards.
    const bow = isForward ? 0 : CARD.height * 0.9;
    curves.push({
      edge,
      path: `M${x1} ${y1} C${x1 + reach} ${y1 + bow} ${x2 - reach} ${y2 + bow} ${x2} ${y2}`,
      head: `M${x2} ${y2 - 4.5} L${x2 + 7} ${y2} L${x2} ${y2 + 4.5} Z`,
      width: 1.25 + 4.75 * Math.sqrt(rateOf(edge) / busiest),
      isFailing: errorsOf(edge) >= FAILING,
      label: { left: (x1 + x2) / 2, top: (y1 + y2) / 2 + bow * 0.75 },
    });
  }
  return curves;
}

function groupBy(edges: readonly TopoEdge[], key: (edge: TopoEdge) => string, order: (a: TopoEdge, b: TopoEdge) => number) {
  const groups = new Map<string, TopoEdge[]>();
  for (const edge of edges) groups.set(key(edge), [...(groups.get(key(edge)) ?? []), edge]);
  for (const group of groups.values()) group.sort(order);
  return groups;
}

export type Step = "ArrowRight" | "ArrowLeft" | "ArrowUp" | "ArrowDown";

/**
 * Walks the graph by keys. From a node, right and left follow the busiest edge out of it or into it; from an edge they
 * lead to its ends; up and down go through the layer of a node, or through the sibling edges of an edge's source.
 */
export function walk(topology: Pick<Topology, "nodes" | "edges">, at: string, step: Step): string {
  const edge = topology.edges.find((candidate) => candidate.id === at);
  if (edge !== undefined) {
    if (step === "ArrowRight") return edge.destination;
    if (step === "ArrowLeft") return edge.source;
    const siblings = topology.edges.filter((candidate) => candidate.source === edge.source);
    return siblings[siblings.indexOf(edge) + (step === "ArrowUp" ? -1 : 1)]?.id ?? at;
  }
  const node = topology.nodes.find((candidate) => candidate.id === at);
  if (node === undefined) return topology.nodes[0]?.id ?? at;
  if (step === "ArrowRight" || step === "ArrowLeft") {
    const side = step === "ArrowRight" ? "source" : "destination";
    const ends = topology.edges.filter((candidate) => candidate[side] === at).sort((a, b) => rateOf(b) - rateOf(a));
    return ends[0]?.id ?? at;
  }
  const layer = topology.nodes.filter((candidate) => candidate.x === node.x).sort((a, b) => a.y - b.y);
  return layer[layer.indexOf(node) + (step === "ArrowUp" ? -1 : 1)]?.id ?? at;
}

/** Edges that touch a node or are the edge itself. */
export function isTouched(edge: TopoEdge, selected: string | null): boolean {
  return selected !== null && (edge.id === selected || edge.source === selected || edge.destination === selected);
}
