// FIXTURE: invented answers in the shape of /api/v1, for looking at pages during development and for tests of the pages.
// Never shipped: the build does not include this folder, and nothing here stands in for the server in a product test.

/** A small seeded generator, so that a fixture is the same on every machine. */
export function seeded(seed) {
  let state = seed >>> 0 || 1;
  return () => {
    state ^= state << 13;
    state ^= state >>> 17;
    state ^= state << 5;
    return (state >>> 0) / 4294967296;
  };
}

const MS = 1e6;
/** `slow` answers comparisons later than the refresh clock ticks; `big` draws 120 000 frames. */
export const SCENARIOS = ["regression", "unchanged", "few", "single", "empty", "broken", "unresolved", "big", "slow"];

function hex(text) {
  let a = 0x811c9dc5;
  let b = 0x1234567;
  for (const character of text) {
    a = Math.imul(a ^ character.charCodeAt(0), 0x01000193);
    b = Math.imul(b ^ character.charCodeAt(0), 0x85ebca6b);
  }
  return (a >>> 0).toString(16).padStart(8, "0") + (b >>> 0).toString(16).padStart(8, "0");
}

const TRUNK = [
  "clone3", "start_thread", "std::sys::pal::unix::thread::Thread::new::thread_start", "tokio::runtime::blocking::pool::Inner::run",
  "tokio::runtime::scheduler::multi_thread::worker::run", "tokio::runtime::scheduler::multi_thread::worker::Context::run_task",
  "tokio::runtime::task::harness::Harness<T,S>::poll", "tokio::runtime::task::core::Core<T,S>::poll",
  "<hyper_util::server::conn::auto::UpgradeableConnection<I,S,E> as core::future::future::Future>::poll",
  "hyper::proto::h1::dispatch::Dispatcher<D,Bs,I,T>::poll_catch",
];
const SERVE = ["hyper::proto::h1::dispatch::Dispatcher<D,Bs,I,T>::poll_read", "<emberline_proxy::label::Labelled<F> as core::future::future::Future>::poll", "axum::routing::route::RouteFuture<E>::poll"];

// Costs are CPU microseconds per request: [path below SERVE, baseline, candidate].
const ROUTE_COSTS = {
  "/checkout": [
    [["checkout::handlers::checkout::{{closure}}"], 42, 43],
    [["checkout::handlers::checkout::{{closure}}", "serde_json::de::from_slice", "serde_json::de::Deserializer<R>::parse_any"], 96, 95],
    [["checkout::handlers::checkout::{{closure}}", "checkout::pricing::price_basket"], 180, 1930],
    [["checkout::handlers::checkout::{{closure}}", "checkout::pricing::price_basket", "core::iter::traits::iterator::Iterator::fold"], 60, 1210],
    [["checkout::handlers::checkout::{{closure}}", "checkout::pricing::price_basket", "checkout::pricing::round_half_even"], 22, 412],
    [["checkout::handlers::checkout::{{closure}}", "checkout::pricing::price_basket", "checkout::pricing::tier_discount"], 0, 365],
    [["checkout::handlers::checkout::{{closure}}", "checkout::pricing::apply_coupons"], 74, 71],
    [["checkout::handlers::checkout::{{closure}}", "checkout::pricing::legacy_tax_table"], 88, 0],
    [["checkout::handlers::checkout::{{closure}}", "checkout::pricing::legacy_tax_table", "alloc::vec::Vec<T,A>::extend_from_slice"], 34, 0],
    [["checkout::handlers::checkout::{{closure}}", "checkout::orders::OrderDraft::validate"], 118, 116],
    [["checkout::handlers::checkout::{{closure}}", "checkout::orders::OrderDraft::validate", "regex_automata::meta::regex::Regex::search"], 141, 139],
    [["checkout::handlers::checkout::{{closure}}", "checkout::clients::payment::authorize::{{closure}}", "hyper_util::client::legacy::client::Client<C,B>::send_request"], 92, 94],
    [["checkout::handlers::checkout::{{closure}}", "checkout::clients::inventory::reserve::{{closure}}", "hyper_util::client::legacy::client::Client<C,B>::send_request"], 87, 86],
    [["checkout::handlers::checkout::{{closure}}", "checkout::receipt::render", "alloc::fmt::format::format_inner"], 63, 66],
    [["tower_http::trace::Trace<S>::call", "tracing_core::dispatcher::get_default"], 27, 28],
  ],
  "/cart/{id}": [
    [["checkout::handlers::cart::{{closure}}"], 31, 31],
    [["checkout::handlers::cart::{{closure}}", "checkout::clients::cart::load::{{closure}}", "hyper_util::client::legacy::client::Client<C,B>::send_request"], 84, 83],
    [["checkout::handlers::cart::{{closure}}", "serde_json::ser::to_vec", "serde::ser::Serializer::collect_seq"], 72, 73],
    [["checkout::handlers::cart::{{closure}}", "checkout::cart_view::summarize"], 58, 57],
  ],
  "/quote": [
    [["checkout::handlers::quote::{{closure}}", "checkout::pricing::apply_coupons"], 66, 65],
    [["checkout::handlers::quote::{{closure}}", "checkout::shipping::estimate"], 120, 122],
    [["checkout::handlers::quote::{{closure}}", "checkout::shipping::estimate", "core::slice::sort::stable::driftsort_main"], 47, 46],
  ],
};

const REQUESTS = { "/checkout": [5210, 5188], "/cart/{id}": [13120, 13004], "/quote": [2630, 2611] };
const TICK_NS = 1e9 / 99;

export function isLibrary(name) {
  return /^<?(core|std|alloc|tokio|hyper|hyper_util|axum|tower_http|tracing_core|serde|serde_json|regex_automata|emberline_proxy)\b/.test(name) || name === "clone3" || name === "start_thread";
}

function gaussian(random) {
  return Math.sqrt(-2 * Math.log(random() + 1e-12)) * Math.cos(2 * Math.PI * random());
}

/** Stacks with exact CPU nanoseconds on both sides: samples are drawn, so totals are whole numbers of ticks. */
function drawStacks(scenario, route) {
  const random = seeded(7);
  const wanted = route === null ? Object.keys(ROUTE_COSTS) : [route];
  const stacks = [];
  const share = scenario === "few" ? 0.004 : 1;
  const requests = [0, 0];
  for (const name of wanted) {
    const costs = ROUTE_COSTS[name] ?? [];
    const [a, b] = REQUESTS[name] ?? [0, 0];
    requests[0] += Math.round(a * share);
    requests[1] += Math.round(b * share);
    for (const [tail, before, after] of costs) {
      const now = scenario === "unchanged" ? before : after;
      const ticks = (microseconds, n) => {
        const mean = (microseconds * 1000 * n * share) / TICK_NS;
        return Math.max(0, Math.round(mean + gaussian(random) * Math.sqrt(mean)));
      };
      const path = [...TRUNK, ...SERVE, ...tail].map((frame) => (scenario === "unresolved" && frame.startsWith("checkout::pricing") ? `0x${hex(frame).slice(8)}` : frame));
      stacks.push({ path, a: Math.round(ticks(before, a) * TICK_NS), b: Math.round(ticks(now, b) * TICK_NS) });
    }
    const idle = Math.round(2 * (requests[0] / 1000));
    stacks.push({ path: [...TRUNK.slice(0, 5), "tokio::runtime::scheduler::multi_thread::park::Parker::park", "tokio::runtime::io::driver::Driver::turn", "epoll_wait"], a: Math.round(idle * 14 * TICK_NS), b: Math.round(idle * 14.3 * TICK_NS) });
  }
  return { stacks, requests };
}

/** Merges stacks into a preorder tree of columns; `function` is filled by the caller's index of names. */
export function treeOf(stacks, functionIndex) {
  const root = { name: "all", children: new Map(), selfA: 0, selfB: 0, totalA: 0, totalB: 0 };
  for (const { path, a, b } of stacks) {
    let node = root;
    node.totalA += a;
    node.totalB += b;
    for (const name of path) {
      let child = node.children.get(name);
      if (child === undefined) {
        child = { name, children: new Map(), selfA: 0, selfB: 0, totalA: 0, totalB: 0 };
        node.children.set(name, child);
      }
      node = child;
      node.totalA += a;
      node.totalB += b;
    }
    node.selfA += a;
    node.selfB += b;
  }
  const names = [];
  const index = new Map();
  const tree = { names, modules: ["", "checkout", "libc.so.6"], name: [], module: [], depth: [], self_a: [], self_b: [], total_a: [], total_b: [], kind: [], function: [], node: [] };
  const pending = [[root, 0]];
  while (pending.length > 0) {
    const [node, depth] = pending.pop();
    if (!index.has(node.name)) {
      index.set(node.name, names.length);
      names.push(node.name);
    }
    tree.name.push(index.get(node.name));
    tree.module.push(depth === 0 ? 0 : /^(clone3|start_thread|epoll_wait)$/.test(node.name) ? 2 : 1);
    tree.depth.push(depth);
    tree.node.push("");
    tree.self_a.push(node.selfA);
    tree.self_b.push(node.selfB);
    tree.total_a.push(node.totalA);
    tree.total_b.push(node.totalB);
    tree.kind.push(depth === 0 ? 3 : node.name.startsWith("0x") ? 2 : isLibrary(node.name) ? 4 : 0);
    tree.function.push(depth === 0 ? -1 : (functionIndex?.get(node.name) ?? -1));
    const children = [...node.children.values()].sort((x, y) => (x.name < y.name ? -1 : 1));
    for (const child of children.reverse()) pending.push([child, depth + 1]);
  }
  return tree;
}

function functionRows(stacks, divisors, scenario) {
  const byName = new Map();
  for (const { path, a, b } of stacks) {
    new Set(path).forEach((name) => {
      const row = byName.get(name) ?? { selfA: 0, selfB: 0, totalA: 0, totalB: 0 };
      row.totalA += a;
      row.totalB += b;
      byName.set(name, row);
    });
    const leaf = byName.get(path.at(-1));
    leaf.selfA += a;
    leaf.selfB += b;
  }
  const total = stacks.reduce((sum, stack) => sum + stack.b / divisors[1] - stack.a / divisors[0], 0);
  const rows = [...byName].map(([name, sums]) => {
    const selfA = sums.selfA / divisors[0];
    const selfB = sums.selfB / divisors[1];
    const totalA = sums.totalA / divisors[0];
    const totalB = sums.totalB / divisors[1];
    const error = Math.sqrt((totalA * TICK_NS) / divisors[0] + (totalB * TICK_NS) / divisors[1]) || 1;
    const delta = totalB - totalA;
    const z = Math.abs(delta) / error;
    const samples = (sums.totalA + sums.totalB) / TICK_NS;
    const confidence = scenario === "few" || samples < 20 ? "few" : z > 4.5 ? "strong" : z > 3.2 ? "weak" : "noise";
    const sure = confidence === "strong" || confidence === "weak";
    return {
      id: hex(name), name, module: /^(clone3|start_thread|epoll_wait)$/.test(name) ? "libc.so.6" : "checkout", library: isLibrary(name),
      raw_self_a: sums.selfA, raw_self_b: sums.selfB, raw_total_a: sums.totalA, raw_total_b: sums.totalB,
      self_a: selfA, self_b: selfB, total_a: totalA, total_b: totalB, delta_self: selfB - selfA, delta_total: delta,
      ratio: totalA > 0 ? totalB / totalA : null, contribution: total === 0 ? 0 : (selfB - selfA) / total,
      low: delta - 1.96 * error, high: delta + 1.96 * error, q_value: Math.min(1, Math.exp((-z * z) / 2)), confidence,
      state: !sure ? "same" : totalA === 0 ? "new" : totalB === 0 ? "gone" : delta > 0 ? "up" : "down",
    };
  });
  return rows.sort((x, y) => Math.abs(y.contribution) - Math.abs(x.contribution));
}

function latencyOf(scenario, route) {
  const base = { "/checkout": [6.2, 9.4, 14.8], "/cart/{id}": [2.1, 3.4, 6.3], "/quote": [1.7, 2.6, 4.4] }[route ?? "/checkout"] ?? [2, 3, 5];
  const slower = scenario === "regression" && (route === "/checkout" || route === null) ? 3.6 : 0.02;
  return {
    quantiles: [0.5, 0.9, 0.99].map((q, at) => {
      const a = base[at];
      const b = a + slower * (1 + at * 0.12);
      const spread = [0.02, 0.035, 0.09][at];
      return { q, baseline_ms: a, baseline_low_ms: a * (1 - spread), baseline_high_ms: a * (1 + spread), candidate_ms: b, candidate_low_ms: b * (1 - spread), candidate_high_ms: b * (1 + spread * 1.3) };
    }),
    baseline_n: (REQUESTS[route] ?? [20960, 20803])[0],
    candidate_n: (REQUESTS[route] ?? [20960, 20803])[1],
  };
}

const BUILDS = ["3f9a1c52e0b7d4468815a2c9d07e6b31f0a95c44", "b81d40e7aa92356ff1c07d3e9b5a6210c4d8e97f"];

/** @param {{scenario?: string, route?: string | null, per?: string, baseline?: string, candidate?: string, now?: number}} [options] */
export function diffOf({ scenario = "regression", route = null, per = "request", baseline = "v1", candidate = "v2", now = Date.now() } = {}) {
  const isSwapped = baseline === "v2";
  const drawn = drawStacks(scenario, route);
  const stacks = isSwapped ? drawn.stacks.map(({ path, a, b }) => ({ path, a: b, b: a })) : drawn.stacks;
  const requests = isSwapped ? [...drawn.requests].reverse() : drawn.requests;
  const windows = scenario === "few" ? 2 : 87;
  const seconds = windows * 10;
  const divisors = per === "request" ? requests.map((n) => Math.max(1, n)) : per === "second" ? [seconds, seconds] : [1, 1];
  const functions = functionRows(stacks, divisors, scenario);
  const index = new Map(functions.map((row, at) => [row.name, at]));
  const sum = (key) => stacks.reduce((total, stack) => total + stack[key], 0);
  const values = [sum("a") / divisors[0], sum("b") / divisors[1]];
  const delta = values[1] - values[0];
  const hasChanged = scenario !== "unchanged" && scenario !== "few" && (route === null || route === "/checkout");
  const error = Math.abs(delta) * 0.06 + 4000;
  const side = (at) => ({
    version: [baseline, candidate][at], from_ms: now - seconds * 1000, to_ms: now, windows, requests: requests[at], seconds,
    samples: Math.round(sum(at === 0 ? "a" : "b") / TICK_NS), total: sum(at === 0 ? "a" : "b"), value: values[at],
    build_ids: [BUILDS[isSwapped ? 1 - at : at]], resolved_ratio: scenario === "unresolved" && at === 1 ? 0.71 : 1, divisor: divisors[at],
    coverage: { covered_s: 870, profiles_s: 870, requests_s: 870, profiled_instances: 1, counted_instances: 1, joined_by: "instance", missing: null },
  });
  const guilty = functions.find((row) => row.name === "checkout::pricing::price_basket");
  const where = route === null ? "checkout" : route;
  return {
    namespace: "shop", service: "checkout", component: "application", route, side: "server", profile_type: "process_cpu:cpu:nanoseconds:cpu:nanoseconds", unit: "nanoseconds", per,
    baseline: side(0), candidate: side(1),
    summary: !hasChanged
      ? scenario === "few" ? `Too few samples to judge ${where}: ${side(0).samples} and ${side(1).samples} samples` : `No significant change in CPU per ${per} on ${where}`
      : `${delta > 0 ? "+" : "−"}${(Math.abs(delta) / MS).toFixed(2)} ms CPU per ${per} on ${where} (×${(values[1] / values[0]).toFixed(1)}); 93 % of it under price_basket`,
    note: null,
    judgement: scenario === "few" ? "too_few_samples" : hasChanged ? "changed" : "no_change",
    guilty: hasChanged ? (guilty?.id ?? null) : null,
    cost_shift: null,
    change: { baseline: values[0], candidate: values[1], delta, low: delta - error, high: delta + error, ratio: values[1] / values[0], p_value: hasChanged ? 1e-12 : 0.61 },
    functions, functions_cut: { count: 0, self_a: 0, self_b: 0 }, tree: scenario === "big" ? bigTree(120_000) : treeOf(stacks, index), latency: latencyOf(scenario, route),
  };
}

/** @param {{scenario?: string, route?: string | null}} [options] */
export function profileOf({ scenario = "single", route = null } = {}) {
  const { stacks, requests } = drawStacks(scenario, route);
  const tree = treeOf(stacks, null);
  const total = stacks.reduce((sum, stack) => sum + stack.a, 0);
  return {
    query: { namespace: "shop", service: "checkout", version: "v1", instance: null, route, component: "application", side: "server", from_ms: 0, to_ms: 870_000 }, cost: { total, requests: requests[0], per_request: total / requests[0] }, profile_type: "process_cpu:cpu:nanoseconds:cpu:nanoseconds", unit: "nanoseconds", total, samples: Math.round(total / TICK_NS), requests: requests[0], functions: [], functions_cut: { count: 0, self: 0 },
    tree: { names: tree.names, modules: tree.modules, name: tree.name, module: tree.module, depth: tree.depth, self: tree.self_a, total: tree.total_a, kind: tree.kind, node: tree.node }, resolved_ratio: 1,
  };
}

/** A big synthetic tree for measuring: `size` nodes, deep trunk, many names. */
export function bigTree(size, seed = 3) {
  const random = seeded(seed);
  const tree = { names: ["all"], modules: ["app"], name: [0], module: [0], depth: [0], self_a: [0], self_b: [0], total_a: [0], total_b: [0], kind: [3], function: [-1], node: [""] };
  for (let at = 0; at < 9000; at += 1) tree.names.push(`crate_${at % 16}::module_${at % 97}::function_${at}`);
  const parents = [-1];
  let depth = 0;
  for (let node = 1; node < size; node += 1) {
    depth = Math.max(1, Math.min(70, depth + (random() < 0.62 ? 1 : -Math.floor(random() * 9))));
    tree.name.push(1 + Math.floor(random() * 9000));
    tree.module.push(0);
    tree.depth.push(depth);
    const weight = Math.floor(random() ** 8 * 1e6) + 1;
    tree.self_a.push(weight);
    tree.self_b.push(Math.floor(weight * (0.8 + random() * 0.5)));
    tree.total_a.push(0);
    tree.total_b.push(0);
    tree.kind.push(random() < 0.5 ? 4 : 0);
    tree.function.push(-1);
    tree.node.push("");
    parents.length = depth;
    parents[depth] = node;
  }
  const open = [];
  for (let node = size - 1; node >= 0; node -= 1) {
    tree.total_a[node] += tree.self_a[node];
    tree.total_b[node] += tree.self_b[node];
  }
  const parent = new Int32Array(size).fill(-1);
  for (let node = 0; node < size; node += 1) {
    while (open.length > tree.depth[node]) open.pop();
    parent[node] = open.at(-1) ?? -1;
    open.push(node);
  }
  for (let node = size - 1; node > 0; node -= 1) {
    tree.total_a[parent[node]] += tree.total_a[node];
    tree.total_b[parent[node]] += tree.total_b[node];
  }
  return tree;
}

const RELEASES = [
  ["v2", 870_000, 20_803, 41, [9.7, 13.2, 19.6]],
  ["v1", 5_400_000, 20_960, 38, [6.2, 9.3, 14.8]],
];

function releaseOf([version, age, requests, errors, [p50, p95, p99]], now, scenario) {
  const slow = version === "v2" && scenario === "regression";
  return {
    version, first_seen_ms: now - age, stated: false, component: "application", last_seen_ms: now - 4000, live: true, instance_count: 1, instances: [`checkout-${version}-0`], build_ids: [BUILDS[version === "v1" ? 0 : 1]], components: ["application"],
    requests, errors, p50_ms: slow || version === "v1" ? p50 : 6.2, p95_ms: p95, p99_ms: p99, cpu_ns: requests * (slow ? 2.1e6 : 1.1e6), cpu_ns_per_request: slow ? 2.1e6 : 1.1e6, complete_cpu_ns: requests * (slow ? 2.1e6 : 1.1e6), complete_requests: requests,
    samples: Math.round((requests * (slow ? 2.1e6 : 1.1e6)) / TICK_NS), windows: 87, complete_windows: version === "v1" ? 87 : 85, covered_s: version === "v1" ? 870 : 850, requests_s: 870, resolved_ratio: 1,
  };
}

export function servicePageOf(scenario, now) {
  const kept = scenario === "single" ? RELEASES.slice(1) : RELEASES;
  const releases = kept.map((entry) => releaseOf(entry, now, scenario));
  const random = seeded(11);
  const routes = [];
  const series = [];
  for (const { version } of releases) {
    for (const [route, counts] of Object.entries(REQUESTS)) {
      const at = version === "v1" ? 0 : 1;
      const cost = ROUTE_COSTS[route].reduce((sum, entry) => sum + entry[scenario === "unchanged" ? 1 : 1 + at], 0) * 1000;
      const [p50, , p99] = latencyOf(at === 0 ? "unchanged" : scenario, route).quantiles.map((pair) => pair.candidate_ms);
      routes.push({ route, version, component: "application", requests: counts[at], rate: counts[at] / 870, error_ratio: route === "/checkout" ? 0.0021 : 0, p50_ms: p50, p95_ms: (p50 + p99) / 2, p99_ms: p99, cpu_ns: cost * counts[at], cpu_ns_per_request: cost, complete_cpu_ns: cost * counts[at], complete_requests: counts[at], samples: Math.round((cost * counts[at]) / TICK_NS) });
    }
    routes.push({ route: "(none)", version, component: "application", requests: 0, rate: 0, error_ratio: 0, p50_ms: null, p95_ms: null, p99_ms: null, cpu_ns: 40 * TICK_NS, cpu_ns_per_request: null, complete_cpu_ns: 40 * TICK_NS, complete_requests: 0, samples: 40 });
    const start = Math.floor(now / 10_000) * 10_000;
    for (let window = 0; window < 87; window += 1) {
      const slow = version === "v2" && scenario === "regression";
      if (version === "v2" && window < 22) continue;
      const wobble = () => 0.92 + random() * 0.16;
      const requests = Math.round(241 * wobble() * (window < 22 && version === "v1" ? 2 : 1));
      series.push({ start_ms: start - (87 - window) * 10_000, version, observed_s: 10, requests, errors: 0, p50_ms: (slow ? 9.8 : 6.2) * wobble(), p95_ms: (slow ? 13 : 9.3) * wobble(), p99_ms: (slow ? 19.4 : 14.8) * wobble(), cpu_ns: requests * 1e6, cpu_ns_per_request: (slow ? 2.1e6 : 1.1e6) * wobble() });
    }
  }
  return { namespace: "shop", service: "checkout", releases, routes, step_s: 10, series, alerts: scenario === "regression" ? alertsOf(now).slice(0, 1) : [] };
}

export function servicesOf(scenario, now) {
  if (scenario === "empty") return { services: [], left_out: 0 };
  const page = servicePageOf(scenario, now);
  const [oldest] = page.releases.slice(-1);
  const other = (service, rps) => ({ namespace: "shop", service, releases: [{ ...oldest, version: "v1" }], live_versions: ["v1"], requests_per_second: rps, error_ratio: 0.001, p99_ms: 7.2 });
  return {
    left_out: 0,
    services: [
      other("cart", 14.9), { namespace: "shop", service: "checkout", releases: page.releases, live_versions: page.releases.map((release) => release.version), requests_per_second: 48.1, error_ratio: 0.0019, p99_ms: 17.1 },
      other("frontend", 35.2), other("inventory", 12), other("payment", 12), other("recommendations", 4.1),
    ],
  };
}

/** Connections of a pool: few of them end, and all of them move bytes. */
const POOL = { open: 10, streaming_seconds: 41_000, request_bytes: 18_300_000, response_bytes: 412_000_000, given_up: 0 };

export function topologyOf(scenario, now) {
  const side = (rate, p50, errors = 0.0009, extra = {}) => ({ requests: Math.round(rate * 870), rate, errors: Math.round(rate * 870 * errors), error_ratio: errors, given_up: 0, p50_ms: p50, p95_ms: p50 * 1.7, p99_ms: p50 * 2.6, streaming_seconds: 0, request_bytes: Math.round(rate * 87_000), response_bytes: Math.round(rate * 870_000), open: 0, ...extra });
  const node = (service, version, x, y, rate, p50, cpu, extra = {}) => ({ id: `shop/${service}@${version}`, namespace: "shop", service, version, kind: "service", x, y, rate, requests: Math.round(rate * 870), error_ratio: 0.0009, p50_ms: p50, p95_ms: p50 * 1.7, p99_ms: p50 * 2.6, cpu_ns_per_request: cpu, served: side(rate, p50), called: side(rate, p50 + 0.34), alert: false, ...extra });
  const slow = scenario === "regression";
  const nodes = [
    { ...node("load generator", "", 0, 1.5, 0, null, null), id: "external/load", kind: "external", namespace: "", error_ratio: 0, p95_ms: null, p99_ms: null, served: null, called: null },
    node("frontend", "v1", 1, 1.5, 35.2, 11.4, 0.7e6), node("checkout", "v1", 2, 0.5, 24.1, 6.2, 1.1e6), node("checkout", "v2", 2, 1.5, 23.9, slow ? 9.8 : 6.2, slow ? 2.1e6 : 1.1e6, { alert: slow }),
    node("recommendations", "v1", 2, 2.5, 4.1, 3.3, null, { error_ratio: 0.021 }), node("cart", "v1", 3, 0.5, 14.9, 1.2, 0.21e6), node("payment", "v1", 3, 1.5, 12, 2.4, 0.34e6), node("inventory", "v1", 3, 2.5, 12, 0.9, 0.18e6),
    { ...node("postgres", "", 3, 3.5, 0.01, 0.2, null), id: "shop/postgres", kind: "destination", served: null, called: side(0.01, 0.2, 0, POOL) },
  ].filter((entry) => scenario !== "single" || entry.version !== "v2");
  const id = (service, version) => `shop/${service}@${version}`;
  const edge = (source, destination, rate, p50, { client = true, server = true, errors = 0.0009, routes = ["/"], protocol = "http/1.1", more = {} } = {}) => ({
    id: `${source}>${destination}`, source, destination, requests: Math.round(rate * 870), client: client ? side(rate, p50 + 0.34, errors, more) : null, server: server ? side(rate, p50, errors, more) : null, open: more.open ?? 0,
    routes: routes.map((route, at) => ({ route, requests: Math.round((rate * 870) / routes.length), errors: at, p50_ms: p50, p95_ms: p50 * 1.7, p99_ms: p50 * 2.6 })), protocol,
  });
  const shop = Object.keys(REQUESTS);
  const edges = [
    edge("external/load", id("frontend", "v1"), 35.2, 11.4, { client: false, routes: ["/", "/shop/checkout", "/shop/cart/{id}"] }),
    edge(id("frontend", "v1"), id("checkout", "v1"), 24.1, 6.2, { routes: shop }), edge(id("frontend", "v1"), id("checkout", "v2"), 23.9, slow ? 9.8 : 6.2, { routes: shop }),
    edge(id("frontend", "v1"), id("recommendations", "v1"), 4.1, 3.3, { errors: 0.021, routes: ["/for/{user}"], server: false }),
    ...["v1", "v2"].flatMap((version) => [
      edge(id("checkout", version), id("cart", "v1"), 7.4, 1.2, { routes: ["/cart/{id}"] }),
      edge(id("checkout", version), id("payment", "v1"), 6, 2.4, { routes: ["payment.Payments/Authorize"], protocol: "grpc" }),
      edge(id("checkout", version), id("inventory", "v1"), 6, 0.9, { routes: ["/reserve"] }),
      edge(id("checkout", version), "shop/postgres", 0.005, 0.2, { server: false, errors: 0, routes: ["tcp"], protocol: "tcp", more: POOL }),
    ]),
  ].filter((entry) => nodes.some((known) => known.id === entry.source) && nodes.some((known) => known.id === entry.destination));
  return scenario === "empty" ? { nodes: [], edges: [], from_ms: now - 3_600_000, to_ms: now, complete: true, left_out: 0 } : { nodes, edges, from_ms: now - 3_600_000, to_ms: now, complete: true, left_out: 0 };
}

export function alertsOf(now) {
  const diff = diffOf({ route: "/checkout", now });
  const guilty = diff.functions.find((row) => row.id === diff.guilty);
  const alert = (extra) => ({
    id: "4be1c70a", state: "firing", kind: "latency", namespace: "shop", service: "checkout", baseline: "v1", candidate: "v2", route: "/checkout", source: "frontend@v1", mode: "concurrent",
    started_ms: now - 640_000, updated_ms: now - 9000, resolved_ms: null,
    sentence: "checkout v2 is slower than v1 on /checkout: p50 6.2 ms → 9.8 ms; `checkout::pricing::price_basket` takes 3.6 ms more CPU per request (100 % of the growth)",
    function: { id: guilty.id, name: guilty.name, module: guilty.module, delta_ns_per_request: guilty.delta_total, share: 1.07, library: false, callee: null }, functions: diff.functions.filter((row) => !row.library).slice(0, 5),
    latency: { ...diff.latency, quantiles: diff.latency.quantiles.slice(0, 2) }, e_value: 48_210_000, alpha: 0.001, windows: 61, client_server: { client_delta_ms: 3.66, server_delta_ms: 3.6 },
    folded: ["frontend@v1 /shop/checkout: +3.6 ms at p50, explained by this"], diff_url: "/compare?service=checkout&baseline=v1&candidate=v2&route=/checkout", suppressed_reason: null, ended_reason: null, ...extra,
  });
  return [
    alert({}),
    alert({ id: "99c0ffee", state: "resolved", route: "/quote", mode: "before_after", source: null, started_ms: now - 9_400_000, updated_ms: now - 7_000_000, resolved_ms: now - 7_000_000, sentence: "checkout v1 answered /quote 0.9 ms slower than v0 at p90 (2.6 → 3.5 ms)", function: null, functions: [], e_value: 1840, folded: [], client_server: { client_delta_ms: null, server_delta_ms: 0.9 }, baseline: "v0", candidate: "v1", suppressed_reason: "the baseline was not live at the same time" }),
  ];
}

export function statusOf(now, started) {
  const received = Math.floor((now - started) / 1000);
  return { version: "0.1.0", pid: 1, connections: {}, own_code: {}, started_ms: started, ready: true, not_ready_reason: null, losses: [], store: { journal_bytes: 0, hot_rows: 0, lsn_acked: 0 }, ingest: { connections: received > 2 ? 1 : 0, requests_batches: 0, profiles_batches: 0, rejected: 0 }, symbols: { builds: 0, locations: 0, resolved: 0 } };
}
