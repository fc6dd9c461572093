// The map: cards over curves, zoom, and one tab stop whose arrow keys walk the graph.
import { useEffect, useMemo, useRef, useState } from "preact/hooks";
import { count, milliseconds, nanoseconds, percent, rate } from "../format";
import { Link } from "../parts/link";
import type { TopoNode, Topology } from "../types";
import type { UrlState } from "../url";
import { CARD, flowOf, isTouched, picture, rateOf, walk, type Step } from "./geometry";
import { edgeName, edgeSummary, flowWords, nodeSummary } from "./words";

interface MapProps {
  topology: Topology;
  selected: string | null;
  /** Nodes of this service are outlined. */
  service: string | null;
  /** Where the alert badge of a release leads. */
  alertOf(node: TopoNode): UrlState;
  onSelect(id: string | null): void;
}

const ZOOMS = [0.5, 0.65, 0.8, 1, 1.25];

export function TopologyMap({ topology, selected, service, alertOf, onSelect }: MapProps) {
  const drawn = useMemo(() => picture(topology), [topology]);
  const drawnTopology = useMemo(() => ({ nodes: drawn.nodes, edges: drawn.curves.map((curve) => curve.edge) }), [drawn]);
  const scroller = useRef<HTMLDivElement>(null);
  const [zoom, setZoom] = useState<number | null>(null);
  const [room, setRoom] = useState(drawn.width);
  const [hovered, setHovered] = useState<string | null>(null);
  // Below 80 % the numbers on the cards cannot be read: then the map scrolls.
  const fit = Math.max(0.8, Math.min(1, room / drawn.width));
  const scale = zoom ?? fit;
  const lit = hovered ?? selected;

  useEffect(() => {
    const observer = new ResizeObserver(() => setRoom(scroller.current?.clientWidth ?? drawn.width));
    observer.observe(scroller.current!);
    return () => observer.disconnect();
  }, []);

  // What is selected comes into view, also when the drawer beside it takes half the room.
  useEffect(() => {
    const box = scroller.current;
    const ends = drawn.curves.find((curve) => curve.edge.id === selected);
    const place = drawn.places.get(selected ?? "") ?? ends?.label;
    if (box === null || place === undefined) return;
    const left = place.left * scale;
    const top = place.top * scale;
    const isShown = left > box.scrollLeft && left + CARD.width < box.scrollLeft + box.clientWidth && top > box.scrollTop && top + CARD.height < box.scrollTop + box.clientHeight;
    if (!isShown) box.scrollTo({ left: left - box.clientWidth / 2 + CARD.width / 2, top: top - box.clientHeight / 2 + CARD.height / 2 });
  }, [selected, room]);

  const keyDown = (event: KeyboardEvent) => {
    if (event.key === "Escape") onSelect(null);
    else if (event.key.startsWith("Arrow")) {
      onSelect(walk(drawnTopology, selected ?? "", event.key as Step));
    } else return;
    event.preventDefault();
  };
  const spoken = useMemo(() => {
    const edge = topology.edges.find((candidate) => candidate.id === selected);
    if (edge !== undefined) return `${edgeName(topology, edge)}: ${edgeSummary(edge)}`;
    const node = topology.nodes.find((candidate) => candidate.id === selected);
    return node === undefined ? "Arrow keys walk the graph: right and left along calls, up and down among neighbours." : nodeSummary(node, topology.edges);
  }, [topology, selected]);
  const isDim = (id: string) => lit !== null && id !== lit && !drawn.curves.some(({ edge }) => isTouched(edge, lit) && isTouched(edge, id));

  return (
    <div class="map-frame">
      <div
        ref={scroller}
        class="map-scroller"
        tabIndex={0}
        role="application"
        aria-roledescription="service map"
        aria-label={`Service map, ${drawn.nodes.length} nodes, ${drawn.curves.length} edges`}
        aria-describedby="map-status"
        onKeyDown={keyDown}
        onClick={(event) => {
          if (event.target === event.currentTarget) onSelect(null);
        }}
      >
        <div style={{ width: `${drawn.width * scale}px`, height: `${drawn.height * scale}px` }}>
          <div class="map" style={{ width: `${drawn.width}px`, height: `${drawn.height}px`, transform: `scale(${scale})` }}>
            <svg width={drawn.width} height={drawn.height} aria-hidden="true">
              {drawn.curves.map((curve) => {
                const { edge } = curve;
                const state = isTouched(edge, lit) ? " is-lit" : lit !== null ? " is-dim" : "";
                return (
                  <g
                    key={edge.id}
                    class={`edge${state}${curve.isFailing ? " is-failing" : ""}${edge.server === null || edge.client === null ? " is-partial" : ""}`}
                    data-edge={edge.id}
                    onPointerEnter={() => setHovered(edge.id)}
                    onPointerLeave={() => setHovered(null)}
                    onClick={() => onSelect(edge.id)}
                  >
                    <path class="edge-hit" d={curve.path} />
                    <path class="edge-line" d={curve.path} stroke-width={curve.width} />
                    <path class="edge-head" d={curve.head} />
                  </g>
                );
              })}
            </svg>
            {drawn.nodes.map((node) => (
              <Card
                key={node.id}
                node={node}
                flow={node.kind === "external" ? flowWords(flowOf(topology.edges, node.id)) : []}
                place={drawn.places.get(node.id)!}
                isSelected={node.id === selected}
                isDim={isDim(node.id)}
                isOfService={node.service === service}
                onHover={(isOver) => setHovered(isOver ? node.id : null)}
                onSelect={() => onSelect(node.id)}
              />
            ))}
            {drawn.nodes
              .filter((node) => node.alert)
              .map((node) => {
                const place = drawn.places.get(node.id)!;
                return (
                  <Link
                    key={node.id}
                    to={alertOf(node)}
                    class="card-alert card-alert-link"
                    aria-label={`Alert of ${node.service} ${node.version}`}
                    title="Open the alert"
                    at={{ left: place.left + CARD.width - 36, top: place.top + 8 }}
                  >
                    ▲
                  </Link>
                );
              })}
            {drawn.curves
              .filter(({ edge }) => edge.id === lit || (lit !== null && lit === selected && isTouched(edge, lit)))
              .map(({ edge, label }) => (
                <div key={edge.id} class="edge-label" style={{ left: `${label.left}px`, top: `${label.top}px` }}>
                  {edge.id === lit ? edgeSummary(edge) : rate(rateOf(edge))}
                </div>
              ))}
          </div>
        </div>
      </div>
      <div class="map-foot">
        <p id="map-status" class="map-status" role="status" aria-live="polite">
          {spoken}
        </p>
        <div class="map-tools" role="group" aria-label="Zoom">
          <button type="button" class="quiet" aria-label="Smaller" onClick={() => setZoom(ZOOMS.findLast((step) => step < scale - 0.01) ?? scale)}>
            −
          </button>
          <button type="button" class="quiet" title="Fit" onClick={() => setZoom(null)}>
            {Math.round(scale * 100)} %
          </button>
          <button type="button" class="quiet" aria-label="Larger" onClick={() => setZoom(ZOOMS.find((step) => step > scale + 0.01) ?? scale)}>
            +
          </button>
        </div>
      </div>
      {(drawn.hiddenNodes > 0 || drawn.hiddenEdges > 0) && (
        <p class="soft">
          Showing the busiest {drawn.nodes.length} releases; {drawn.hiddenNodes} releases and {drawn.hiddenEdges} edges are in the table only.
        </p>
      )}
    </div>
  );
}

interface CardProps {
  node: TopoNode;
  /** What a node outside the mesh sends and receives. */
  flow: [string, string][];
  place: { left: number; top: number };
  isSelected: boolean;
  isDim: boolean;
  isOfService: boolean;
  onHover(isOver: boolean): void;
  onSelect(): void;
}

function Card({ node, flow, place, isSelected, isDim, isOfService, onHover, onSelect }: CardProps) {
  const marks = [isSelected && "is-selected", isDim && "is-dim", isOfService && "is-of-service", node.kind !== "service" && "is-external", node.alert && "has-alert"];
  return (
    // The map itself is the tab stop and reads the selection aloud; the card serves the pointer.
    <button
      type="button"
      tabIndex={-1}
      class={`card ${marks.filter(Boolean).join(" ")}`}
      style={{ left: `${place.left}px`, top: `${place.top}px`, width: `${CARD.width}px`, height: `${CARD.height}px` }}
      data-node={node.id}
      onPointerEnter={() => onHover(true)}
      onPointerLeave={() => onHover(false)}
      onClick={onSelect}
    >
      <span class="card-head">
        <b class="card-name">{node.service}</b>
        {node.version !== "" && <span class="version">{node.version}</span>}
      </span>
      {node.kind === "external" ? (
        <>
          <span class="card-external">outside the mesh</span>
          <span class="card-facts">
            {flow.map(([name, value]) => (
              <Fact key={name} name={name} value={value} />
            ))}
          </span>
        </>
      ) : (
        <span class="card-facts">
          <Fact name="rate" value={rate(node.rate)} />
          <Fact name="errors" value={percent(node.error_ratio)} tone={node.error_ratio >= 0.01 ? "more" : ""} />
          <Fact name="p99" value={milliseconds(node.p99_ms)} />
          {node.kind === "destination" ? (
            <Fact name="open" value={count(node.called?.open ?? 0)} />
          ) : (
            <Fact name="CPU/req" value={nanoseconds(node.cpu_ns_per_request)} />
          )}
        </span>
      )}
    </button>
  );
}

function Fact({ name, value, tone = "" }: { name: string; value: string; tone?: string }) {
  return (
    <span class="fact">
      <span class="fact-name">{name}</span>
      <span class={`fact-value ${tone}`}>{value}</span>
    </span>
  );
}
