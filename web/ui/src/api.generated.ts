// Generated from the types of the server; do not edit. To regenerate it:
// cargo build --release --workspace --example api_types && target/release/examples/api_types > web/ui/src/api.generated.ts

/** Parameters and response type of each query. */
export interface Questions {
  "api/v1/alerts": { parameter: "state"; answer: Alerts };
  "api/v1/callers": { parameter: "function" | "selector" | "profile_type" | "from" | "to" | "limit"; answer: Callers };
  "api/v1/cardinality": { parameter: "from" | "to"; answer: Cardinality };
  "api/v1/diff": { parameter: "service" | "namespace" | "baseline" | "candidate" | "route" | "component" | "side" | "profile_type" | "per" | "from" | "to" | "baseline_from" | "baseline_to" | "candidate_from" | "candidate_to" | "limit" | "functions_limit" | "node" | "format"; answer: Diff };
  "api/v1/exemplars": { parameter: "trace_id" | "span_id" | "selector" | "profile_type" | "from" | "to" | "exemplars_limit"; answer: Exemplars };
  "api/v1/functions": { parameter: "service" | "namespace" | "version" | "instance" | "baseline" | "candidate" | "route" | "component" | "side" | "profile_type" | "per" | "from" | "to" | "baseline_from" | "baseline_to" | "candidate_from" | "candidate_to" | "functions_limit"; answer: Functions };
  "api/v1/heatmap": { parameter: "selector" | "profile_type" | "from" | "to" | "step"; answer: HeatMap };
  "api/v1/label_values": { parameter: "label" | "selector" | "from" | "to"; answer: LabelValues };
  "api/v1/labels": { parameter: "selector" | "from" | "to"; answer: LabelNames };
  "api/v1/merge": { parameter: "selector" | "profile_type" | "from" | "to" | "limit" | "functions_limit" | "node" | "format"; answer: Merge };
  "api/v1/profile": { parameter: "service" | "namespace" | "version" | "instance" | "route" | "component" | "side" | "profile_type" | "from" | "to" | "limit" | "functions_limit" | "node" | "format"; answer: ProfileAnswer };
  "api/v1/profile_types": { parameter: "selector" | "from" | "to"; answer: ProfileTypes };
  "api/v1/releases": { parameter: "service" | "namespace" | "from" | "to"; answer: Releases };
  "api/v1/series": { parameter: "selector" | "profile_type" | "from" | "to" | "step" | "group_by" | "aggregation" | "series_limit"; answer: SeriesAnswer };
  "api/v1/service": { parameter: "service" | "namespace" | "from" | "to"; answer: ServicePage };
  "api/v1/services": { parameter: "from" | "to"; answer: Services };
  "api/v1/status": { parameter: never; answer: Status };
  "api/v1/topology": { parameter: "from" | "to" | "namespace"; answer: Topology };
}

/** A regression of a release on a route, with its evidence. */
export interface Alert {
  /** False-positive probability per edge and release, over the whole lifetime. */ alpha: number;
  /** Baseline release. */ baseline: string;
  /** Candidate release. */ candidate: string;
  /** Client against server. */ client_server: ClientServerSplit;
  /** Path of the Compare page with this comparison. */ diff_url: string;
  /** Evidence: how many times more likely the data is under a regression. */ e_value: number;
  /** Why it ended, unless the route recovered or is no longer called. */ ended_reason: string | null;
  /** Slowdowns of callers that this one explains. */ folded: string[];
  function: GuiltyFunction | null;
  /** The functions that changed most, per request. */ functions: FunctionRow[];
  /** Hash of the alert's subject; stable across restarts. */ id: string;
  /** `latency`: it got slower; `client_latency`: its callers wait longer, and not because it got slower; `errors`: it fails more often. */ kind: string;
  /** Quantiles of both releases; of `client_latency`, as their callers measure them. */ latency: LatencyEvidence;
  /** Whether both releases were live. */ mode: ComparisonMode;
  /** Namespace of the service that changed. */ namespace: string;
  /** When it ended. */ resolved_ms: number | null;
  /** Route template. */ route: string;
  /** Summary in one sentence. */ sentence: string;
  /** The service that changed. */ service: string;
  /** Calling release (`service@version`); null for several or unknown callers. */ source: string | null;
  /** Window of the first verdict, milliseconds since the Unix epoch. */ started_ms: number;
  /** State. */ state: AlertStatus;
  /** Why it was not sent, when it was not. */ suppressed_reason: string | null;
  /** Latest window judged. */ updated_ms: number;
  /** Windows used. */ windows: number;
}

/** State of an alert. */
export type AlertStatus = "suspected" | "firing" | "recovering" | "resolved";

/** Alerts, newest first. */
export interface Alerts {
  /** The alerts. */ alerts: Alert[];
}

/** A caller or callee of the requested function. */
export interface CallNeighbour {
  /** 16 hexadecimal digits; null without a caller or callee. */ id: string | null;
  module: string;
  /** `(none)` without a caller or callee. */ name: string;
  samples: number;
  /** Value of stacks that contain both. */ value: number;
}

/** A function, its callers and its callees. */
export interface Callers {
  /** Direct callees, the largest first. */ callees: CallNeighbour[];
  /** The function is below the root, its callees below it. */ callees_tree: ProfileTree;
  /** Direct callers, the largest first. */ callers: CallNeighbour[];
  /** Inverted: the function is below the root, its callers below it, and so on. */ callers_tree: ProfileTree;
  /** The function. */ function: ProfileFunction;
  query: SelectionQuery;
  /** Sum of all stacks, including those without the function. */ total: number;
}

/** What is stored, per service. */
export interface Cardinality {
  /** Rows of samples in the range. */ rows: number;
  /** Sorted by rows, descending. */ services: ServiceCardinality[];
  /** Total stored bytes, including data outside the range. */ stored_bytes: number;
}

/** Difference of the medians seen from both ends of the edge, milliseconds. */
export interface ClientServerSplit {
  /** Seen by the callers. */ client_delta_ms: number | null;
  /** Seen by the release itself. */ server_delta_ms: number | null;
}

/** Whether the two releases were live at the same time. */
export type ComparisonMode = "concurrent" | "before_after";

/** Component whose CPU a profile shows. Always kept apart: a sidecar's cost is not its application's. */
export type Component = "application" | "proxy";

/** Confidence in a row. */
export type Confidence = "strong" | "weak" | "noise" | "few";

/** Total cost of both sides and its difference. */
export interface CostChange {
  /** Cost of the baseline. */ baseline: number;
  /** Cost of the candidate. */ candidate: number;
  /** Difference. */ delta: number;
  /** Upper end of its 95 % interval. */ high: number;
  /** Lower end of its 95 % interval. */ low: number;
  /** That it changed by more than 1 %, in either direction. */ p_value: number;
  /** Candidate over baseline. */ ratio: number | null;
}

/** How much of a range the two signals cover. */
export interface Coverage {
  /** Instances that reported requests. */ counted_instances: number;
  /** Seconds covered by both; costs per request are based on them. */ covered_s: number;
  /** How windows were joined. */ joined_by: JoinedBy;
  missing: Missing | null;
  /** Instances that sent profiles. */ profiled_instances: number;
  /** Seconds covered by profiles of the type. */ profiles_s: number;
  /** Seconds covered by requests. */ requests_s: number;
}

/** CPU, and the part of it that is divided by requests. */
export interface CpuFigures {
  /** CPU in the time covered by both signals. */ complete_cpu_ns: number;
  /** Requests in that time, rounded for partly covered windows. */ complete_requests: number;
  /** CPU for requests served and outside of requests, all windows. */ cpu_ns: number;
  /** `complete_cpu_ns / complete_requests`; null without requests. */ cpu_ns_per_request: number | null;
  /** Stack samples of `cpu_ns`. */ samples: number;
}

/** What changed between two releases. */
export interface Diff {
  baseline: SideSummary;
  candidate: SideSummary;
  change: CostChange;
  component: string;
  /** Note on cost that moved between functions: renamed, inlined, split. */ cost_shift: string | null;
  /** Sorted by the size of `contribution`. */ functions: FunctionRow[];
  /** Rows omitted by `functions_limit`. */ functions_cut: DiffFunctionsCut;
  /** ID of the guilty function. */ guilty: string | null;
  judgement: Judgement;
  latency: LatencyEvidence | null;
  namespace: string;
  /** Note, if the figures differ from what was requested: CPU of the whole service, because no stacks carry the route. */ note: string | null;
  per: Per;
  profile_type: string;
  /** Null for all routes. */ route: string | null;
  service: string;
  side: string;
  /** Summary in one sentence. */ summary: string;
  tree: DiffTree;
  /** Unit of raw values and, per `per`, of costs. */ unit: string;
}

/** Every function of two releases. */
export interface DiffFunctions {
  /** The baseline release. */ baseline: SideSummary;
  /** The candidate release. */ candidate: SideSummary;
  /** Sorted by the size of `contribution`. */ functions: FunctionRow[];
  /** Rows omitted by `functions_limit`. */ functions_cut: DiffFunctionsCut;
  /** ID of the guilty function. */ guilty: string | null;
  /** What costs are divided by. */ per: Per;
  /** What was measured. */ profile_type: string;
  /** Unit of raw values and, per `per`, of costs. */ unit: string;
}

/** Rows omitted from a comparison's function table. */
export interface DiffFunctionsCut {
  /** Rows. */ count: number;
  /** Their raw self values of the baseline. */ self_a: number;
  /** Their raw self values of the candidate. */ self_b: number;
}

/** The tree of a comparison. Columns are parallel; node 0 is the root (or the requested node) with depth 0. Values are raw. */
export interface DiffTree {
  /** Distance from the root. */ depth: number[];
  /** Index into `functions` of the same response; -1 for the root, cut nodes and functions omitted from the table. */ function: number[];
  /** 0 function, 1 cut node, 2 unresolved address, 3 root, 4 library function. */ kind: number[];
  /** Index into `modules`. */ module: number[];
  /** Modules, each once; the first is empty. */ modules: string[];
  /** Index into `names`. */ name: number[];
  /** Names, each once. */ names: string[];
  /** For cut nodes, the value for `node=` to see what was cut; otherwise empty. */ node: string[];
  /** Self value of the baseline. */ self_a: number[];
  /** Self value of the candidate. */ self_b: number[];
  /** Total value of the baseline. */ total_a: number[];
  /** Total value of the candidate. */ total_b: number[];
}

/** One route of an edge. */
export type EdgeRoute = Quantiles & {
  errors: number;
  requests: number;
  route: string;
};

/** What one side of an edge reported. */
export type EdgeSide = Quantiles & {
  error_ratio: number;
  errors: number;
  /** Requests abandoned by their callers; neither errors nor part of the quantiles. */ given_up: number;
  /** Streams, gRPC calls and connections open at the end of the range. */ open: number;
  /** Per second observed. */ rate: number;
  /** Body bytes from the caller. */ request_bytes: number;
  requests: number;
  /** Body bytes to the caller. */ response_bytes: number;
  /** Total time they continued beyond their latency, in seconds: streams, slow readers, connections. */ streaming_seconds: number;
};

/** The body of an error response. */
export interface ErrorBody {
  /** What went wrong. */ error: ErrorDetail;
}

/** What went wrong. */
export interface ErrorDetail {
  /** Stable name for programs, for example `unknown_service`. */ code: string;
  /** What was wrong and what to do. */ message: string;
  /** True if a retry can succeed. */ retry: boolean;
}

/** A function of a stack. */
export interface ExemplarFunction {
  /** 16 hexadecimal digits. */ id: string;
  module: string;
  name: string;
}

/** One sample. */
export interface ExemplarSample {
  /** Time of the sample, or the start of its profile if the sender did not say. */ at_ms: number;
  /** The same in nanoseconds since the Unix epoch, as text, because JSON numbers have too few digits. */ at_unix_ns: string;
  /** `application` or `proxy`. */ component: string;
  instance: string;
  namespace: string;
  /** Empty for samples without a route. */ route: string;
  service: string;
  /** `server` or `client`; null for samples without a side. */ side: string | null;
  /** 16 hexadecimal digits; null when only the trace is known. */ span_id: string | null;
  /** Index into `stacks`. */ stack: number;
  /** 32 hexadecimal digits; null when only the span is known. */ trace_id: string | null;
  /** In the unit of the profile type. */ value: number;
  version: string;
}

/** Samples of requests. */
export interface Exemplars {
  /** Number of further samples of the selected series in the range that were not kept, of any trace or span. */ cut: number;
  /** Oldest first. */ exemplars: ExemplarSample[];
  /** Number of matching samples, without the limit. */ found: number;
  /** Functions of the stacks. */ functions: ExemplarFunction[];
  query: SelectionQuery;
  /** Stacks, leaf first, as indices into `functions`. Empty if the stack is no longer known. */ stacks: number[][];
  /** Sum of the values of all of them. */ value: number;
}

/** One function of a comparison. Raw values are exact integers in the unit of the profile type (nanoseconds of CPU, bytes, a count); costs are divided by the side's divisor. */
export interface FunctionRow {
  /** Confidence. */ confidence: Confidence;
  /** `delta_self` as a share of the whole change; the shares of all functions add up to 1. */ contribution: number;
  /** `self_b - self_a`. */ delta_self: number;
  /** `total_b - total_a`. */ delta_total: number;
  /** Upper end of the 95 % interval of `delta_total`. */ high: number;
  /** Function identifier, 16 hexadecimal digits. */ id: string;
  /** Library code. */ library: boolean;
  /** Lower end of the 95 % interval of `delta_total`. */ low: number;
  /** Base name of the file its code was loaded from. */ module: string;
  /** Normalised name. */ name: string;
  /** Benjamini–Hochberg adjusted p-value of a change of the total by more than 5 %. */ q_value: number;
  /** `total_b / total_a`; null when the baseline has none. */ ratio: number | null;
  /** Raw self value of the baseline. */ raw_self_a: number;
  /** Raw self value of the candidate. */ raw_self_b: number;
  /** Raw total value of the baseline. */ raw_total_a: number;
  /** Raw total value of the candidate. */ raw_total_b: number;
  /** Self cost of the baseline. */ self_a: number;
  /** Self cost of the candidate. */ self_b: number;
  /** Kind of change. */ state: FunctionState;
  /** Total cost of the baseline. */ total_a: number;
  /** Total cost of the candidate. */ total_b: number;
}

/** What happened to a function between the releases. */
export type FunctionState = "new" | "gone" | "up" | "down" | "same";

/** Either response. */
export type Functions = ProfileFunctions | DiffFunctions;

/** Rows omitted from a function table. */
export interface FunctionsCut {
  /** Rows. */ count: number;
  /** Sum of their self values. */ self: number;
}

/** The function that explains a slowdown. */
export interface GuiltyFunction {
  /** Library function it calls that caused most of that growth; null when the growth is in the function itself. */ callee: string | null;
  /** Growth of its total CPU time per request, nanoseconds. */ delta_ns_per_request: number;
  /** Its name in the baseline; null when it had the same. */ formerly: string | null;
  /** Function identifier, 16 hexadecimal digits. */ id: string;
  /** True when only library code explains the growth. */ library: boolean;
  /** Base name of the file its code was loaded from. */ module: string;
  /** Normalised name. */ name: string;
  /** That growth as a share of the route's; 1 where the route grew by less. */ share: number;
}

/** Totals of windows over time. */
export interface HeatMap {
  /** Start of the step of each cell. */ at_ms: number[];
  /** Lower bounds of the buckets, ascending, in the unit of the profile type; each bucket ends where the next begins. */ bounds: number[];
  /** Its bucket, as an index into `bounds`. */ bucket: number[];
  /** Its windows. */ count: number[];
  /** Most windows in one cell. */ most: number;
  query: SelectionQuery;
  /** Seconds of a step. */ step_s: number;
  /** Sum of their totals. */ total: number;
  /** Sum of their totals. */ value: number[];
  /** Windows counted. */ windows: number;
}

/** How windows were joined. */
export type JoinedBy = "instance" | "release";

/** Overall judgement of a comparison. */
export type Judgement = "changed" | "no_change" | "too_few_samples";

/** One label. */
export interface LabelName {
  name: string;
  /** Number of distinct values. */ values: number;
}

/** Labels that samples carry. */
export interface LabelNames {
  /** By name. */ labels: LabelName[];
}

/** One value of a label. */
export interface LabelValue {
  /** Samples taken. */ samples: number;
  /** Series: combinations of labels and profile type. */ series: number;
  value: string;
}

/** Values of a label. */
export interface LabelValues {
  label: string;
  /** By value; empty for samples without the label. */ values: LabelValue[];
}

/** Latency of both releases. */
export interface LatencyEvidence {
  /** Requests of the baseline. */ baseline_n: number;
  /** Requests of the candidate. */ candidate_n: number;
  /** p50, p90, p99. */ quantiles: QuantilePair[];
}

/** A counter whose growth indicates loss, damage or failure. */
export interface LossRow {
  /** Count since start-up. */ count: number;
  /** What it counts. */ help: string;
  /** Name of the metric, without `_total`. */ name: string;
  /** What to do about it. */ remedy: string;
  /** `count`, `bytes` or `seconds`. */ unit: Unit;
}

/** Functions of a selection. */
export interface Merge {
  /** Sorted by self value. */ functions: ProfileFunction[];
  /** Rows omitted by `functions_limit`. */ functions_cut: FunctionsCut;
  /** The query. */ query: SelectionQuery;
  /** Share of `total` whose leaf function has a name, 0 to 1. */ resolved_ratio: number;
  /** Stack samples taken. */ samples: number;
  /** Sum of all stacks. */ total: number;
  tree: ProfileTree;
}

/** Why costs cannot be divided by requests. */
export type Missing = "requests" | "profiles" | "both" | "same_time";

/** One series. */
export interface OneSeries {
  /** Starts of steps, parallel to `values`. */ at_ms: number[];
  /** Values of the labels of `group_by`, in that order. */ labels: string[];
  /** Stack samples taken. */ samples: number;
  /** Sum of all values for any aggregation; for an averaged gauge, the mean of `values`. */ total: number;
  /** A value per step. */ values: number[];
}

/** What costs are divided by. */
export type Per = "request" | "second" | "total";

/** The windows of one release that start within one step. */
export type Point = Quantiles & {
  cpu_ns: number;
  /** For the time covered by both signals; null without such time or without requests. */ cpu_ns_per_request: number | null;
  errors: number;
  /** Seconds covered by the windows with these requests; 0 without request data. */ observed_s: number;
  requests: number;
  /** Start of the step, milliseconds since the Unix epoch. */ start_ms: number;
  version: string;
};

/** CPU profile of one release. */
export interface ProfileAnswer {
  /** Cost of a request. */ cost: ProfileCost;
  /** Sorted by self value. */ functions: ProfileFunction[];
  /** Rows omitted by `functions_limit`. */ functions_cut: FunctionsCut;
  profile_type: string;
  query: ProfileQuery;
  /** Requests of the same release, side and route. */ requests: number;
  /** Share of `total` whose leaf function has a name, 0 to 1. */ resolved_ratio: number;
  /** Stack samples taken. */ samples: number;
  /** Sum of all stacks. */ total: number;
  tree: ProfileTree;
  /** Unit of values. */ unit: string;
}

/** Cost of a request, based on the time covered by both signals. */
export interface ProfileCost {
  /** `total / requests`; null without requests. */ per_request: number | null;
  requests: number;
  /** In the unit of the profile. */ total: number;
}

/** One function. */
export interface ProfileFunction {
  /** 16 hexadecimal digits. */ id: string;
  /** Library code. */ library: boolean;
  module: string;
  name: string;
  /** Samples of stacks that contain it. */ samples: number;
  /** Value of stacks that end in it. */ self: number;
  /** Value of stacks that contain it. */ total: number;
}

/** Every function of one release. */
export interface ProfileFunctions {
  functions: ProfileFunction[];
  functions_cut: FunctionsCut;
  profile_type: string;
  requests: number;
  samples: number;
  /** Sum of all stacks. */ total: number;
  /** Unit of values. */ unit: string;
  version: string;
}

/** The query with defaults filled in. */
export interface ProfileQuery {
  component: Component;
  from_ms: number;
  instance: string | null;
  namespace: string;
  route: string | null;
  service: string;
  side: string | null;
  to_ms: number;
  version: string;
}

/** The tree of one profile. Columns are parallel; node 0 is the root (or the requested node) with depth 0. */
export interface ProfileTree {
  /** Distance from the root. */ depth: number[];
  /** 0 function, 1 cut node, 2 unresolved address, 3 root, 4 library function. */ kind: number[];
  /** Index into `modules`. */ module: number[];
  /** Modules, each once; the first is empty. */ modules: string[];
  /** Index into `names`. */ name: number[];
  /** Names, each once. */ names: string[];
  /** For cut nodes, the value for `node=` to see what was cut; otherwise empty. */ node: string[];
  /** Value of stacks that end here, in the unit of the profile. */ self: number[];
  /** Value of stacks that pass through here. */ total: number[];
}

/** One profile type. */
export interface ProfileTypeInfo {
  /** `name:sample_type:unit:period_type:period_unit`. */ id: string;
  name: string;
  period_type: string;
  period_unit: string;
  sample_type: string;
  samples: number;
  series: number;
  unit: string;
}

/** Profile types. */
export interface ProfileTypes {
  /** By id. */ profile_types: ProfileTypeInfo[];
}

/** One quantile of both releases, with 95 % intervals, in milliseconds. */
export interface QuantilePair {
  /** Upper end. */ baseline_high_ms: number | null;
  /** Lower end. */ baseline_low_ms: number | null;
  /** Baseline. */ baseline_ms: number | null;
  /** Upper end. */ candidate_high_ms: number | null;
  /** Lower end. */ candidate_low_ms: number | null;
  /** Candidate. */ candidate_ms: number | null;
  /** Quantile, 0 to 1. */ q: number;
}

/** Durations in milliseconds; null without requests. */
export interface Quantiles {
  /** Median: half of the requests took at most this long. */ p50_ms: number | null;
  /** 95 % of the requests took at most this long. */ p95_ms: number | null;
  /** 99 % of the requests took at most this long. */ p99_ms: number | null;
}

/** A release and what it reported in the range. */
export interface Release {
  build_ids: string[];
  /** Reporting components: `application`, `proxy` or both. */ components: Component[];
  /** When it was first seen, or its start as declared through the API; may be before the range. Releases are ordered by it. */ first_seen_ms: number;
  /** How many processes reported. */ instance_count: number;
  /** End of its last window in the range. */ last_seen_ms: number;
  /** It still reported at the end of the range. */ live: boolean;
  /** Whether the start was declared through the API (`POST /api/v1/releases`). */ stated: boolean;
  version: string;
}

/** A release with its requests and their cost. */
export type ReleaseStats = Release & Quantiles & CpuFigures & {
  /** Profile windows that count, fully or in part, when CPU is divided by requests. */ complete_windows: number;
  /** Component of the figures below: the application if it reports, else the proxy. */ component: Component;
  /** Seconds covered by both signals. */ covered_s: number;
  errors: number;
  instances: string[];
  /** Requests served. */ requests: number;
  /** Seconds covered by request windows. */ requests_s: number;
  /** Share of CPU whose leaf function has a name, 0 to 1. */ resolved_ratio: number;
  /** Windows reported. */ windows: number;
};

/** Releases of a service. */
export interface Releases {
  namespace: string;
  /** Newest first. */ releases: ReleaseStats[];
  service: string;
}

/** One route of one release. */
export type RouteStats = Quantiles & CpuFigures & {
  /** Component. A release reported by both application and proxy has a row for each. */ component: Component;
  error_ratio: number;
  /** Per second observed. */ rate: number;
  /** Requests served. */ requests: number;
  /** Route; `(none)` for CPU outside of requests. */ route: string;
  version: string;
};

/** The query with defaults filled in. */
export interface SelectionQuery {
  from_ms: number;
  profile_type: string;
  selector: string;
  to_ms: number;
  /** Unit of values. */ unit: string;
}

/** A profile type over time. */
export interface SeriesAnswer {
  /** `sum` or `average`. */ aggregation: string;
  /** Labels that series are grouped by. */ group_by: string[];
  /** The query. */ query: SelectionQuery;
  /** Largest first. */ series: OneSeries[];
  /** Series omitted by `series_limit`. */ series_cut: SeriesCut;
  /** Seconds per point. */ step_s: number;
}

/** Omitted series. */
export interface SeriesCut {
  /** Series. */ count: number;
  /** Sum of all their values. */ total: number;
}

/** A service and its releases. */
export interface Service {
  /** 0 to 1. */ error_ratio: number;
  /** Versions that report at the end of the range, newest first. */ live_versions: string[];
  /** May be empty. */ namespace: string;
  /** Null without requests. */ p99_ms: number | null;
  /** Newest first. */ releases: Release[];
  /** Requests served, over the seconds observed. */ requests_per_second: number;
  service: string;
}

/** What is stored for one service. */
export interface ServiceCardinality {
  /** Start of its first window with samples in the range. */ first_ms: number;
  instances: number;
  /** Start of its last window with samples in the range. */ last_ms: number;
  namespace: string;
  profile_types: number;
  /** Routes in sample labels. */ routes: number;
  /** Rows of samples: one per window, series and stack. */ rows: number;
  samples: number;
  /** Combinations of instance, component, profile type, side and route. */ series: number;
  service: string;
  /** Share of all rows, 0 to 1. */ share: number;
  /** Distinct stacks. */ stacks: number;
  versions: number;
}

/** Everything about one service. */
export interface ServicePage {
  /** Alerts about this service, newest first. */ alerts: Alert[];
  namespace: string;
  /** Newest first. */ releases: ReleaseStats[];
  /** By route, then newest version first. */ routes: RouteStats[];
  /** By step, then newest version first; the component is given per release. */ series: Point[];
  service: string;
  /** Length of a step of `series`, in seconds. */ step_s: number;
}

/** Reporting services. */
export interface Services {
  /** Number of services left out. */ left_out: number;
  /** By namespace and name; if there are very many, those that reported longest in the range. */ services: Service[];
}

/** What was compared on one side. */
export interface SideSummary {
  /** Builds whose code ran. */ build_ids: string[];
  /** How much of the range both signals cover, and why there is no cost per request, if so. */ coverage: Coverage;
  /** What values are divided by: requests, seconds or 1. */ divisor: number;
  /** Start of the range, milliseconds since the Unix epoch. */ from_ms: number;
  /** Requests that values are divided by; all requests seen if they are divided by something else. */ requests: number;
  /** Share of the value whose leaf has a name, 0 to 1. */ resolved_ratio: number;
  /** Stack samples. */ samples: number;
  /** Seconds of instances observed. */ seconds: number;
  /** End of the range. */ to_ms: number;
  /** Sum of all stacks, exact, in the unit of the profile type: nanoseconds of CPU, bytes, a count. */ total: number;
  /** `total` divided by `divisor`. */ value: number;
  /** The version. */ version: string;
  /** Windows of profiles used. */ windows: number;
}

/** Status of the server. */
export interface Status {
  /** Connections of this server: open, allowed, refused and closed, by reason. */ connections: Record<string, unknown>;
  /** Counters of ingest. */ ingest: Record<string, unknown>;
  /** Losses, damage and failures since start-up, by kind, including kinds with a count of 0. */ losses: LossRow[];
  /** Why it is not ready. */ not_ready_reason: string | null;
  /** Configured own-code prefixes by service (`--own-code`). */ own_code: Record<string, string[]>;
  /** Process ID, as in the lock file of its store. */ pid: number;
  /** Whether queries can be answered. */ ready: boolean;
  /** Start of the process. */ started_ms: number;
  /** Counters and sizes of the store. */ store: Record<string, unknown>;
  /** Symbolization. */ symbols: Symbols;
  /** Version of the program. */ version: string;
}

/** Progress of symbolization. */
export interface Symbols {
  /** Builds whose code was seen. */ builds: number;
  /** Native locations seen. */ locations: number;
  /** Number of those for which symbols were looked up. */ resolved: number;
}

/** Requests from one node to another. */
export interface TopoEdge {
  client: EdgeSide | null;
  /** Node id of the callee. */ destination: string;
  id: string;
  /** Streams, gRPC calls and connections open at the end of the range, from the same report. */ open: number;
  /** Protocol of most requests. */ protocol: string;
  /** As reported by the callee, or else by the caller. */ requests: number;
  /** From the same report as `requests`, most requests first. */ routes: EdgeRoute[];
  server: EdgeSide | null;
  /** Node id of the caller. */ source: string;
}

/** A release or an unidentified peer. */
export type TopoNode = Quantiles & {
  /** An alert about this release is firing. */ alert: boolean;
  called: EdgeSide | null;
  /** From complete windows; the application's if it reports, else the proxy's. */ cpu_ns_per_request: number | null;
  error_ratio: number;
  /** `namespace/service@version`, `namespace/service`, `external` or `unknown destination`. */ id: string;
  kind: TopoNodeKind;
  namespace: string;
  /** Requests served per second observed. */ rate: number;
  /** Requests served, per caller as reported by this node, or else by the caller. */ requests: number;
  served: EdgeSide | null;
  service: string;
  version: string;
  /** Layer, in cards: callees are to the right of their callers. */ x: number;
  /** Row, in cards. */ y: number;
};

/** What a node stands for. */
export type TopoNodeKind = "service" | "destination" | "external";

/** The call graph of a range. */
export interface Topology {
  /** False while batches of the range's last windows may still arrive. */ complete: boolean;
  edges: TopoEdge[];
  from_ms: number;
  /** Number of services left out: if there are very many, only those that reported longest in the range are here, with their callers and callees. */ left_out: number;
  /** One per release, and at most one each for unknown callers and callees. */ nodes: TopoNode[];
  to_ms: number;
}

/** Unit of a metric. */
export type Unit = "count" | "bytes" | "seconds";
