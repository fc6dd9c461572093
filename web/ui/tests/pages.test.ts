import { describe, expect, test } from "vitest";
import { alertsOf, servicePageOf, topologyOf } from "../dev/fixture-data.mjs";
import { evidenceWords, inOrder, oneIn, splitWords } from "../src/alerts/words";
import { perNote } from "../src/compare/choose";
import { isApart, quantileName } from "../src/latency";
import { countersIn, lossesIn, portsIn, receivedIn, refusedIn, tablesIn, targetsIn } from "../src/status";
import { align, axisEnds, loneWindows, requestsPerSecond, tickLabels } from "../src/service/series";
import { groupRoutes, routeCount } from "../src/service/routes";
import { BUDGET, flowOf, isTouched, picture, walk } from "../src/topology/geometry";
import { edgeRows, sortRows } from "../src/topology/rows";
import { edgeSummary, flowWords, gap, gapWords, nodeSummary, sideFacts } from "../src/topology/words";
import { answer } from "./fixture";
import type { Alert, Coverage, Diff, LossRow, Point, RouteStats, ServicePage, SideSummary, Topology } from "../src/types";

const NOW = 1_700_000_000_000;
const topology = answer<Topology>(topologyOf("regression", NOW));
const plain = (text: string) => text.replaceAll("\u202f", " ").replaceAll("\u2212", "-");

describe("the map", () => {
  test("places cards by the server's layers and rows without overlap", () => {
    const drawn = picture(topology);
    expect(drawn.nodes).toHaveLength(topology.nodes.length);
    expect(drawn.curves).toHaveLength(topology.edges.length);
    const places = [...drawn.places.values()];
    expect(new Set(places.map((place) => `${place.left},${place.top}`)).size).toBe(places.length);
    for (const place of places) expect(place.left).toBeGreaterThanOrEqual(0);
  });

  test("is wider for busier edges and marks failing ones", () => {
    const { curves } = picture(topology);
    const byId = new Map(curves.map((curve) => [curve.edge.id, curve]));
    expect(byId.get("external/load>shop/frontend@v1")!.width).toBeGreaterThan(byId.get("shop/checkout@v1>shop/inventory@v1")!.width);
    expect(curves.filter((curve) => curve.isFailing).map((curve) => curve.edge.destination)).toEqual(["shop/recommendations@v1"]);
  });

  test("stays within its budget, keeps alerts, and says how much it left out", () => {
    const nodes = Array.from({ length: 200 }, (_, at) => ({ ...topology.nodes[1]!, id: `n${at}`, rate: at, alert: at === 0, x: at, y: 0 }));
    const edges = Array.from({ length: 900 }, (_, at) => ({ ...topology.edges[1]!, id: `e${at}`, source: `n${at % 200}`, destination: `n${(at * 7) % 200}` }));
    const drawn = picture({ nodes, edges });
    expect(drawn.nodes).toHaveLength(BUDGET.nodes);
    expect(drawn.nodes.some((node) => node.alert)).toBe(true);
    expect(drawn.curves.length).toBeLessThanOrEqual(BUDGET.edges);
    expect(drawn.hiddenNodes).toBe(140);
    expect(drawn.hiddenEdges).toBe(900 - drawn.curves.length);
  });

  test("what lies outside the mesh counts by its edges, from whichever side reported", () => {
    const outside = topology.nodes[0]!;
    const [entering, inner] = topology.edges;
    const leaving = { ...inner!, id: "out", source: inner!.source, destination: outside.id, server: null };
    const edges = [...topology.edges, leaving];
    expect([outside.rate, entering!.client, leaving.server]).toEqual([0, null, null]);
    expect(flowOf(edges, outside.id)).toEqual({ out: entering!.server!.rate, in: leaving.client!.rate });
    expect(plain(nodeSummary(outside, edges))).toBe("load generator: outside the mesh, sends 35.2 /s, receives 24.1 /s");
    expect(flowWords({ out: 0, in: 0 })).toEqual([]);
  });

  test("a crowded map keeps the busiest of what lies outside", () => {
    const quiet = Array.from({ length: 200 }, (_, at) => ({ ...topology.nodes[1]!, id: `n${at}`, rate: 1, x: at }));
    const { nodes } = picture({ nodes: [...quiet, topology.nodes[0]!], edges: topology.edges });
    expect(nodes.some((node) => node.kind === "external")).toBe(true);
  });

  test("draws an edge back to an earlier layer, and one to itself", () => {
    const [, frontend, checkout] = topology.nodes;
    const back = { ...topology.edges[1]!, id: "back", source: checkout!.id, destination: frontend!.id };
    const own = { ...topology.edges[1]!, id: "own", source: checkout!.id, destination: checkout!.id };
    for (const curve of picture({ nodes: topology.nodes, edges: [back, own] }).curves) expect(curve.path).not.toContain("NaN");
  });

  test("keys walk along edges and through layers, and stop at the ends", () => {
    let at = walk(topology, "", "ArrowRight");
    expect(at).toBe("external/load");
    const path: string[] = [at];
    for (let step = 0; step < 6; step += 1) path.push((at = walk(topology, at, "ArrowRight")));
    expect(path.slice(0, 5)).toEqual(["external/load", "external/load>shop/frontend@v1", "shop/frontend@v1", "shop/frontend@v1>shop/checkout@v1", "shop/checkout@v1"]);
    expect(walk(topology, "shop/checkout@v1", "ArrowDown")).toBe("shop/checkout@v2");
    expect(walk(topology, "shop/checkout@v1", "ArrowUp")).toBe("shop/checkout@v1");
    expect(walk(topology, "shop/frontend@v1>shop/checkout@v1", "ArrowDown")).toBe("shop/frontend@v1>shop/checkout@v2");
    expect(walk(topology, "shop/cart@v1", "ArrowRight")).toBe("shop/cart@v1");
  });

  test("lights what touches the selection", () => {
    const edge = topology.edges[1]!;
    expect([isTouched(edge, edge.id), isTouched(edge, edge.source), isTouched(edge, "other"), isTouched(edge, null)]).toEqual([true, true, false, false]);
  });
});

describe("both sides of an edge", () => {
  test("a side nobody reported is said so and never counts as zero", () => {
    const [first] = topology.edges;
    expect(first!.client).toBeNull();
    expect(gap(first!.client, first!.server, "p50_ms")).toBeNull();
    expect(gapWords(null)).toBe("unknown");
    expect(edgeSummary(first!)).toContain("server side only");
    expect(edgeSummary({ ...first!, server: null })).toBe("not reported by either side");
  });

  test("what is usually nothing is said only when it is something", () => {
    const plain = topology.edges.find((edge) => edge.protocol === "grpc")!;
    expect(sideFacts([plain.client, plain.server]).map(([name]) => name)).toEqual(["requests", "rate", "errors", "sent", "received", "p50", "p95", "p99"]);
    const left = { ...plain.client!, given_up: 3 };
    expect(sideFacts([left, null]).map(([name]) => name)).toContain("abandoned");
  });

  test("a database that nobody's proxy speaks for shows its open connections and bytes", () => {
    const pool = topology.edges.find((edge) => edge.destination === "shop/postgres")!;
    const facts = new Map(sideFacts([pool.client, pool.server]).map(([name, format]) => [name, format(pool.client!)]));
    expect([facts.get("open now"), facts.get("sent"), facts.get("received")]).toEqual(["10", "18.3\u202fMB", "412\u202fMB"]);
    expect(edgeSummary(pool)).toContain("10 open, client side only");
    const node = topology.nodes.find((entry) => entry.id === "shop/postgres")!;
    expect(nodeSummary(node, topology.edges)).toContain("postgres, reported by its callers only");
  });

  test("the gap is client minus server", () => {
    const edge = topology.edges[1]!;
    expect(gap(edge.client, edge.server, "p50_ms")).toBeCloseTo(0.34);
  });

  test("rows sort both ways", () => {
    const rows = edgeRows(topology);
    const down = sortRows(rows, "rate", true).map((row) => row.rate);
    expect(down).toEqual([...down].sort((a, b) => b - a));
    expect(sortRows(rows, "source", false)[0]!.source).toBe("checkout@v1");
  });
});

describe("what CPU is divided by", () => {
  const side = (version: string, missing: Coverage["missing"]) => ({ version, coverage: { missing } }) as unknown as SideSummary;
  const diff = (per: Diff["per"], missing: Coverage["missing"], note: string | null = null) => ({ per, note, baseline: side("v1", null), candidate: side("v2", missing) });

  test("is said where it is not requests, with the reason", () => {
    expect(perNote("best", diff("second", "requests"))).toBe("CPU per request is unavailable (v2 sent no requests): compared per second");
    expect(perNote("best", diff("request", null))).toBeNull();
    expect(perNote("second", diff("second", "requests"))).toBeNull();
    expect(perNote("request", diff("request", null, "shown for the whole service"))).toBe("CPU: shown for the whole service");
  });
});

describe("series", () => {
  const point = (step: number, version: string, requests: number, observed_s = 10) =>
    ({ start_ms: step * 10_000, version, requests, observed_s }) as unknown as Point;

  test("line up by step, with gaps where a release reported nothing", () => {
    const series = align([point(10, "v1", 50), point(12, "v1", 70), point(11, "v2", 30)], ["v2", "v1"], 10, requestsPerSecond);
    expect(series.x).toEqual([100, 110, 120]);
    expect(series.columns).toEqual([
      [null, 3, null],
      [5, null, 7],
    ]);
  });

  test("steps of long ranges stand at their times", () => {
    const minutes = [0, 6, 12, 24].map((step) => point(step, "v1", 120, 60));
    const series = align(minutes, ["v1"], 60, requestsPerSecond);
    expect(series.x).toEqual([0, 60, 120, 180, 240]);
    expect(series.columns).toEqual([[2, 2, 2, null, 2]]);
  });

  test("a step that is covered in part is no drop of the rate", () => {
    const series = align([point(0, "v1", 120, 60), point(6, "v1", 20, 10)], ["v1"], 60, requestsPerSecond);
    expect(series.columns).toEqual([[2, 2]]);
  });

  test("windows longer than a step, and none of requests", () => {
    const series = align([point(0, "v1", 600, 60), point(6, "v1", 0, 0)], ["v1"], 60, requestsPerSecond);
    expect(series.columns).toEqual([[10, null]]);
  });

  test("no windows make an empty chart", () => expect(align([], ["v1"], 10, requestsPerSecond)).toEqual({ x: [], versions: ["v1"], columns: [[]] }));
});

describe("the time axis", () => {
  // A clock with whole minutes: zones differ by quarters of an hour, never by seconds.
  const noon = 1_700_049_600;
  const ticks = (step: number, count = 8) => tickLabels(Array.from({ length: count }, (_, at) => noon + at * step));

  test.each([1, 5, 15, 30, 60, 300, 3600, 6 * 3600, 86_400])("no label repeats with a tick every %d s", (step) => {
    expect(new Set(ticks(step)).size).toBe(8);
  });

  test("seconds and days are told only where they are needed", () => {
    expect(ticks(15)[1]).toMatch(/^\d\d:\d\d:15$/);
    expect(ticks(60)[1]).toMatch(/^\d\d:\d\d$/);
    expect(ticks(6 * 3600)[1]).toMatch(/Nov.*\d\d:\d\d$/);
  });

  test("ends with the data, and gives a single window some room", () => {
    expect(axisEnds([100, 110, 120])).toEqual([100, 120]);
    expect(axisEnds([100])).toEqual([90, 110]);
    expect(axisEnds([])).toEqual([null, null]);
  });

  test("a window without neighbours is drawn by itself", () => {
    expect(loneWindows([1, null, 2, 3, null, 0])).toEqual([0, 5]);
    expect(loneWindows([null, null])).toEqual([]);
  });
});

test("work outside requests is no route, and stands last", () => {
  const row = (route: string, requests: number) => ({ route, requests, version: "v1", component: "application" }) as RouteStats;
  const rows = [row("(none)", 9), row("/a", 1), row("/b", 5)];
  expect(routeCount(rows)).toBe(2);
  expect(groupRoutes(rows, ["v1"]).map(([first]) => first!.route)).toEqual(["/b", "/a", "(none)"]);
});

test("routes group by route, busiest first, newest version first", () => {
  const page = answer<ServicePage>(servicePageOf("regression", NOW));
  const groups = groupRoutes(page.routes, ["v2", "v1"]);
  expect(groups.map((rows) => rows[0]!.route)).toEqual(["/cart/{id}", "/checkout", "/quote", "(none)"]);
  for (const rows of groups) expect(rows.map((row) => row.version)).toEqual(["v2", "v1"]);
});

describe("alerts in words", () => {
  const alerts = answer<Alert[]>(alertsOf(NOW));

  test("firing comes first", () => {
    expect(inOrder([...alerts].reverse()).map((alert) => alert.state)).toEqual(["firing", "resolved"]);
  });

  test("the false-alarm rate is said as one in so many", () => {
    expect(plain(oneIn(0.001))).toBe("1 in 1 000");
    expect(oneIn(0)).toBe("unknown");
    expect(plain(evidenceWords({ e_value: 48_210_000, alpha: 0.001, windows: 61 }))).toContain("over a million to 1 after 61 windows; 1 000 to 1 is needed");
  });

  test("where the time is spent follows from both sides", () => {
    expect(splitWords({ client_delta_ms: 3.66, server_delta_ms: 3.6 })).toContain("in the service itself");
    expect(plain(splitWords({ client_delta_ms: 5, server_delta_ms: 1 }))).toContain("+4.00 ms is spent in the network");
    expect(splitWords({ client_delta_ms: null, server_delta_ms: 1 })).toContain("client side is not reported");
    expect(splitWords({ client_delta_ms: null, server_delta_ms: null })).toContain("Neither side");
  });

  test("intervals that touch are no difference", () => {
    const pair = alerts[0]!.latency.quantiles[0]!;
    expect(isApart(pair)).toBe(true);
    expect(isApart({ ...pair, candidate_low_ms: 5 })).toBe(false);
    expect(isApart({ ...pair, candidate_low_ms: null })).toBe(false);
    expect([0.5, 0.9, 0.99, 0.999].map(quantileName)).toEqual(["p50", "p90", "p99", "p99.9"]);
  });
});

const loss = (name: string, count: number): LossRow => ({ name, help: "Rows", remedy: "Check the disk.", unit: "count", count });

test("the waiting page shows whatever counters the server has", () => {
  const counters = countersIn({ ingest: { batches: 3, peers: ["a"] }, store: { lsn_acked: 7, hot_rows_gone: 1 }, symbols: { builds: 0, locations: 0, resolved: 0 }, losses: [loss("emberline_store_hot_rows_gone", 1)] });
  expect(counters.map(({ section, name, value, isLoss }) => [section, name, value, isLoss])).toEqual([
    ["ingest", "batches", 3, false],
    ["store", "lsn acked", 7, false],
    ["store", "hot rows gone", 1, true],
    ["symbols", "builds", 0, false],
    ["symbols", "locations", 0, false],
    ["symbols", "resolved", 0, false],
  ]);
});

test("only losses that happened are shown, as the server names them", () => {
  expect(lossesIn({ losses: [loss("a", 0), loss("b", 2)] }).map(({ name, count }) => [name, count])).toEqual([["b", 2]]);
  expect(lossesIn({ losses: [] })).toEqual([]);
});

test("the status page shows every signal, and targets that are down first", () => {
  const target = (address: string, state: string) => ({ job: "go", address, profile: "cpu", state, last_error: "", last_scrape_unix_ms: 0, samples: 0, left_out: "" });
  const status = {
    ingest: {
      metrics: { stored: 3, duplicate: 1, bytes: 9 },
      refused_metrics: [],
      cumulative_buckets: 4,
      scrape: { targets: [target("a", "up"), target("b", "down")] },
    },
  };
  expect(receivedIn(status)).toEqual([{ signal: "metrics", stored: 3, duplicate: 1, bytes: 9 }]);
  expect(targetsIn(status).map(({ address }) => address)).toEqual(["b", "a"]);
  const connections = { ports: { pages: { open: 2, refused: { full: 3 }, ended: { idle: 0, slow_reader: 1 } } } };
  expect(portsIn({ connections })).toEqual([
    {
      port: "pages",
      open: 2,
      reasons: [
        ["full", 3],
        ["slow reader", 1],
      ],
    },
  ]);
  const workloads = { used: 3, limit: 3, is_full: true, largest_senders: [{ sender: "10.0.0.1", entries: 2 }] };
  const shares = { workloads, refused: [{ table: "workloads", sender: "10.0.0.1", count: 9 }] };
  expect(tablesIn({ ingest: { shares } })).toEqual([
    { name: "workloads", used: 3, limit: 3, isFull: true, largest: "10.0.0.1 2", refused: "10.0.0.1 9 workloads" },
  ]);
  expect([receivedIn({ ingest: {} }), targetsIn({ ingest: {} }), portsIn({ connections: {} }), tablesIn({ ingest: {} })]).toEqual([[], [], [], []]);
});

test("the waiting page names metrics that were left out, durations of requests first", () => {
  const metric = (name: string, reason: string) => ({ service: "shop", metric: name, shape: "gauge", reason, points: 3, remedy: "" });
  const status = { ingest: { refused_metrics: [metric("threads", "unknown_metric"), metric("durations", "not_a_histogram")] } };
  expect(refusedIn(status).map((refused) => refused.metric)).toEqual(["durations", "threads"]);
  expect(refusedIn(status, 1)).toHaveLength(1);
  expect(refusedIn({ ingest: {} })).toEqual([]);
});
