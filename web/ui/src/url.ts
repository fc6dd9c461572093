// Everything a page shows follows from its address. This is the only place that reads or writes addresses: one field
// list drives both directions, so a link, a reload and the back button always agree.
// On purpose: values that do not parse fall back to the default silently, and parameters nobody knows are dropped.

export const PAGES = ["home", "compare", "topology", "service", "alerts", "status", "missing"] as const;
export type Page = (typeof PAGES)[number];

export const FACETS = ["all", "significant", "up", "down", "new", "gone"] as const;
export type Facet = (typeof FACETS)[number];

export const SORT_KEYS = [
  "contribution",
  "name",
  "self_a",
  "self_b",
  "delta_self",
  "total_a",
  "total_b",
  "delta_total",
  "ratio",
  "confidence",
] as const;
export type SortKey = (typeof SORT_KEYS)[number];

/** What CPU may be asked to be divided by. */
export type AskedPer = "best" | "request" | "second" | "total";

export const RANGES = ["15m", "1h", "6h", "24h"] as const;

interface Codec<T> {
  /** Name of the query parameter. */
  key: string;
  default: T;
  pages: readonly Page[] | "every";
  read(text: string): T | undefined;
  write(value: T): string;
}

const EVERY = "every" as const;
const COMPARE = ["compare"] as const;

function text(key: string, pages: readonly Page[] | "every" = COMPARE): Codec<string | null> {
  return { key, default: null, pages, read: (raw) => (raw === "" ? undefined : raw), write: (value) => value ?? "" };
}

function choice<const T extends string>(
  key: string,
  values: readonly T[],
  fallback: NoInfer<T>,
  pages: readonly Page[] | "every" = COMPARE,
): Codec<T> {
  return { key, default: fallback, pages, read: (raw) => values.find((value) => value === raw), write: (value) => value };
}

function flag(key: string, fallback: boolean, pages: readonly Page[] | "every" = COMPARE): Codec<boolean> {
  return {
    key,
    default: fallback,
    pages,
    read: (raw) => (raw === "1" ? true : raw === "0" ? false : undefined),
    write: (value) => (value ? "1" : "0"),
  };
}

const TIME = /^(?:now(?:-\d{1,9}[smhd])?|\d{1,12}(?:\.\d{1,9})?)$/;

function time<T extends string | null>(key: string, fallback: T, pages: readonly Page[] | "every"): Codec<string | T> {
  return { key, default: fallback, pages, read: (raw) => (TIME.test(raw) ? raw : undefined), write: (value) => value ?? "" };
}

/** Every field of the address, in the order it is written. */
const FIELDS = {
  service: text("service", EVERY),
  namespace: text("namespace", EVERY),
  baseline: text("baseline"),
  candidate: text("candidate"),
  route: text("route"),
  component: choice("component", ["application", "proxy"], "application"),
  side: choice("side", ["", "server", "client"], ""),
  /** Best: per request where the data allows it, else per second; the answer says which. */
  per: choice("per", ["best", "request", "second", "total"], "best"),
  from: time("from", "now-1h", EVERY),
  to: time("to", "now", EVERY),
  baselineFrom: time("baseline_from", null, COMPARE),
  baselineTo: time("baseline_to", null, COMPARE),
  candidateFrom: time("candidate_from", null, COMPARE),
  candidateTo: time("candidate_to", null, COMPARE),
  view: choice("view", ["merged", "split", "table"], "merged"),
  /** Path key of the frame the graph is zoomed to. */
  focus: text("focus"),
  /** Id of the function picked in the table, highlighted in the graph. */
  pick: text("pick"),
  find: text("find"),
  show: choice("show", FACETS, "all"),
  code: choice("code", ["mine", "all"], "mine"),
  sort: choice("sort", SORT_KEYS, "contribution"),
  descending: flag("desc", true),
  width: choice("width", ["max", "baseline", "candidate"], "max"),
  root: choice("root", ["top", "bottom"], "top"),
  /** The call tree as a table instead of the canvas. */
  tree: flag("tree", false),
  select: text("select", ["topology"]),
  /** Auto is the map, or the table on a narrow screen. */
  as: choice("as", ["auto", "map", "table"], "auto", ["topology"]),
  state: choice("state", ["all", "firing"], "all", ["alerts"]),
  alert: text("alert", ["alerts"]),
  live: flag("live", true, EVERY),
} as const;

type Fields = typeof FIELDS;
type Values = { [K in keyof Fields]: Fields[K] extends Codec<infer T> ? T : never };
export type UrlState = { page: Page } & Values;

const ENTRIES = Object.entries(FIELDS) as [keyof Fields, Codec<unknown>][];

function belongs(codec: Codec<unknown>, page: Page): boolean {
  return codec.pages === EVERY || codec.pages.includes(page);
}

/** The state of a page whose address has no parameters. */
export function defaults(page: Page): UrlState {
  const state: Record<string, unknown> = { page };
  for (const [name, codec] of ENTRIES) state[name] = codec.default;
  return state as UrlState;
}

/** Reads a path below the base and its query, e.g. `("/compare", "?service=cart")`. */
export function decode(pathname: string, search: string): UrlState {
  const name = pathname.replace(/^\/+|\/+$/g, "");
  const page: Page = name === "" ? "home" : (PAGES.find((known) => known === name && known !== "home" && known !== "missing") ?? "missing");
  const state: Record<string, unknown> = defaults(page);
  const query = new URLSearchParams(search);
  for (const [field, codec] of ENTRIES) {
    if (!belongs(codec, page)) continue;
    const raw = query.get(codec.key);
    if (raw === null) continue;
    const value = codec.read(raw);
    if (value !== undefined) state[field] = value;
  }
  return state as UrlState;
}

/** Writes the path below the base, without a leading slash, with only what differs from the defaults. */
export function encode(state: UrlState): string {
  const query = new URLSearchParams();
  for (const [field, codec] of ENTRIES) {
    const value = state[field];
    if (belongs(codec, state.page) && value !== codec.default) query.set(codec.key, codec.write(value));
  }
  const path = state.page === "home" || state.page === "missing" ? "" : state.page;
  // Slashes and colons are legal in a query and keep routes readable in shared links.
  const tail = query.toString().replaceAll("%2F", "/").replaceAll("%3A", ":");
  return tail === "" ? path : `${path}?${tail}`;
}

/** Another page with the same scope (time range, live switch) and nothing else. */
export function elsewhere(state: UrlState, page: Page, patch: Partial<Values> = {}): UrlState {
  return { ...defaults(page), from: state.from, to: state.to, live: state.live, ...patch };
}

/** A path from the server, such as an alert's `diff_url`, read as a state; null when it is no path of ours. */
export function decodePath(path: string): UrlState | null {
  if (!path.startsWith("/") || path.startsWith("//")) return null;
  const at = path.indexOf("?");
  const state = at < 0 ? decode(path, "") : decode(path.slice(0, at), path.slice(at));
  return state.page === "missing" ? null : state;
}

/** True when the range moves with the clock, so a refresh can change the answer. */
export function isMoving(state: UrlState): boolean {
  return state.to.startsWith("now");
}

const SECONDS: Record<string, number> = { s: 1, m: 60, h: 3600, d: 86_400 };

/** `now-15m` or `1700000000` as unix seconds. */
export function toUnixSeconds(moment: string, nowSeconds: number): number {
  const relative = /^now(?:-(\d+)([smhd]))?$/.exec(moment);
  if (relative === null) return Number(moment);
  return nowSeconds - Number(relative[1] ?? 0) * (SECONDS[relative[2] ?? "s"] ?? 1);
}

/** The state with its moving range pinned to what it means now, so that the receiver sees the same. */
export function pinned(state: UrlState, nowMs: number): UrlState {
  const now = Math.floor(nowMs / 1000);
  const pin = (moment: string) => String(toUnixSeconds(moment, now));
  return { ...state, from: pin(state.from), to: pin(state.to), live: true };
}
