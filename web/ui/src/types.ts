// The answers of /api/v1, as the server writes them. Times end in `_ms` (unix milliseconds), CPU in `_ns`.
// `null` always means "not reported" or "cannot be said", never zero.

export type Component = "application" | "proxy";
export type Per = "request" | "second" | "total";
export type SideName = "server" | "client";

export interface Services {
  services: Service[];
}

export interface Service {
  namespace: string;
  service: string;
  releases: Release[];
  live_versions: string[];
  requests_per_second: number;
  error_ratio: number;
  p99_ms: number | null;
}

export interface Release {
  version: string;
  first_seen_ms: number;
  last_seen_ms: number;
  live: boolean;
  instances: string[];
  build_ids: string[];
  components: Component[];
}

export interface ReleaseStats extends Release {
  requests: number;
  errors: number;
  p50_ms: number | null;
  p95_ms: number | null;
  p99_ms: number | null;
  cpu_ns: number;
  cpu_ns_per_request: number | null;
  samples: number;
  windows: number;
  complete_windows: number;
  /** Seconds that both requests and profiles cover: what cost per request is taken from. */
  covered_s: number;
  /** Seconds that requests are known of. */
  requests_s: number;
  resolved_ratio: number;
}

export interface ServicePage {
  namespace: string;
  service: string;
  releases: ReleaseStats[];
  routes: RouteStats[];
  /** Length of a step of `series`. */
  step_s: number;
  series: Point[];
  alerts: Alert[];
}

export interface RouteStats {
  route: string;
  version: string;
  component: string;
  requests: number;
  rate: number;
  error_ratio: number;
  p50_ms: number | null;
  p95_ms: number | null;
  p99_ms: number | null;
  cpu_ns: number;
  cpu_ns_per_request: number | null;
  samples: number;
}

/** The windows of one release that start within one step. */
export interface Point {
  start_ms: number;
  version: string;
  /** Seconds that the windows with these requests cover; 0 where nothing is known of requests. */
  observed_s: number;
  requests: number;
  errors: number;
  p50_ms: number | null;
  p95_ms: number | null;
  p99_ms: number | null;
  cpu_ns: number;
  cpu_ns_per_request: number | null;
}

export interface ProfileAnswer {
  profile_type: string;
  unit: string;
  total: number;
  samples: number;
  requests: number;
  functions: ProfileFunction[];
  functions_cut: { count: number; self: number };
  tree: ProfileTree;
  resolved_ratio: number;
}

export interface ProfileFunction {
  id: string;
  name: string;
  module: string;
  self: number;
  total: number;
  samples: number;
  library: boolean;
}

/** What a tree node stands for, as numbered on the wire. */
export const NodeKind = { function: 0, cut: 1, unresolved: 2, root: 3, library: 4 } as const;

/** A flame tree as columns in preorder; node 0 is the root at depth 0. */
export interface ProfileTree {
  names: string[];
  modules: string[];
  name: number[];
  module: number[];
  depth: number[];
  self: number[];
  total: number[];
  kind: number[];
}

export interface Diff {
  namespace: string;
  service: string;
  component: string;
  route: string | null;
  side: string;
  profile_type: string;
  unit: string;
  per: Per;
  baseline: DiffSide;
  candidate: DiffSide;
  summary: string;
  /** What to know about the figures, where they are not those that were asked for. */
  note: string | null;
  judgement: "changed" | "no_change" | "too_few_samples";
  guilty: string | null;
  cost_shift: string | null;
  change: Change;
  functions: FunctionRow[];
  functions_cut: { count: number; self_a: number; self_b: number };
  tree: DiffTree;
  latency: LatencyEvidence | null;
}

/** The change of the whole cost, in the unit of `per`, with its 95 % interval. */
export interface Change {
  baseline: number;
  candidate: number;
  delta: number;
  low: number;
  high: number;
  ratio: number | null;
  p_value: number;
}

export interface DiffSide {
  version: string;
  from_ms: number;
  to_ms: number;
  windows: number;
  requests: number;
  seconds: number;
  coverage: Coverage;
  samples: number;
  total: number;
  value: number;
  build_ids: string[];
  resolved_ratio: number;
  divisor: number;
}

/** How much of a range both signals cover. */
export interface Coverage {
  covered_s: number;
  profiles_s: number;
  requests_s: number;
  profiled_instances: number;
  counted_instances: number;
  joined_by: "instance" | "release";
  missing: "requests" | "profiles" | "both" | "same_time" | null;
}

export type Confidence = "strong" | "weak" | "noise" | "few";
export type ChangeState = "new" | "gone" | "up" | "down" | "same";

export interface FunctionRow {
  id: string;
  name: string;
  module: string;
  library: boolean;
  raw_self_a: number;
  raw_self_b: number;
  raw_total_a: number;
  raw_total_b: number;
  self_a: number;
  self_b: number;
  total_a: number;
  total_b: number;
  delta_self: number;
  delta_total: number;
  ratio: number | null;
  contribution: number;
  low: number;
  high: number;
  q_value: number;
  confidence: Confidence;
  state: ChangeState;
}

export interface DiffTree {
  names: string[];
  modules: string[];
  name: number[];
  module: number[];
  depth: number[];
  self_a: number[];
  self_b: number[];
  total_a: number[];
  total_b: number[];
  kind: number[];
  function: number[];
}

export interface LatencyEvidence {
  quantiles: QuantilePair[];
  baseline_n: number;
  candidate_n: number;
}

export interface QuantilePair {
  q: number;
  baseline_ms: number | null;
  baseline_low_ms: number | null;
  baseline_high_ms: number | null;
  candidate_ms: number | null;
  candidate_low_ms: number | null;
  candidate_high_ms: number | null;
}

export interface Topology {
  nodes: TopoNode[];
  edges: TopoEdge[];
  from_ms: number;
  to_ms: number;
  complete: boolean;
}

export interface TopoNode {
  id: string;
  namespace: string;
  service: string;
  version: string;
  /** `destination`: named by its callers alone, without a proxy or not there. */
  kind: "service" | "destination" | "external";
  x: number;
  y: number;
  rate: number;
  requests: number;
  error_ratio: number;
  p50_ms: number | null;
  p95_ms: number | null;
  p99_ms: number | null;
  cpu_ns_per_request: number | null;
  /** Its own report, and what its callers report of it. */
  served: EdgeSide | null;
  called: EdgeSide | null;
  alert: boolean;
}

export interface TopoEdge {
  id: string;
  source: string;
  destination: string;
  requests: number;
  client: EdgeSide | null;
  server: EdgeSide | null;
  routes: EdgeRoute[];
  protocol: string;
  /** Streams, gRPC calls and connections open at the end of the range. */
  open: number;
}

export interface EdgeSide {
  requests: number;
  rate: number;
  errors: number;
  error_ratio: number;
  /** Left by their callers: no errors, and not in the quantiles. */
  given_up: number;
  p50_ms: number | null;
  p95_ms: number | null;
  p99_ms: number | null;
  streaming_seconds: number;
  request_bytes: number;
  response_bytes: number;
  open: number;
}

export interface EdgeRoute {
  route: string;
  requests: number;
  errors: number;
  p50_ms: number | null;
  p95_ms: number | null;
  p99_ms: number | null;
}

export interface Alerts {
  alerts: Alert[];
}

export type AlertState = "suspected" | "firing" | "recovering" | "resolved";

export interface Alert {
  id: string;
  state: AlertState;
  kind: string;
  namespace: string;
  service: string;
  baseline: string;
  candidate: string;
  route: string;
  source: string | null;
  mode: "concurrent" | "before_after";
  started_ms: number;
  updated_ms: number;
  resolved_ms: number | null;
  sentence: string;
  function: AlertFunction | null;
  functions: FunctionRow[];
  latency: LatencyEvidence;
  e_value: number;
  alpha: number;
  windows: number;
  client_server: { client_delta_ms: number | null; server_delta_ms: number | null };
  folded: string[];
  diff_url: string;
  suppressed_reason: string | null;
  ended_reason: string | null;
}

export interface AlertFunction {
  id: string;
  name: string;
  module: string;
  delta_ns_per_request: number;
  share: number;
  library: boolean;
  callee: string | null;
}

/** Counters differ between builds of the server, so the page shows whatever numbers arrive. */
export interface Status {
  version: string;
  started_ms: number;
  ready: boolean;
  not_ready_reason: string | null;
  losses: { name: string; help: string; remedy: string; unit: string; count: number }[];
  store: Record<string, unknown>;
  ingest: Record<string, unknown>;
  symbols: Record<string, unknown>;
}
