// Numbers and names as people read them. Every number carries its unit; a missing one is an en dash, never a zero.
import type { Per } from "./types";

const NARROW_SPACE = "\u202f";
const MINUS = "\u2212";
export const MISSING = "\u2013";

/** Three significant digits without an exponent: 4.13, 41.3, 413, 4130. */
export function digits(value: number): string {
  // Rounded before its size is judged: 999.6 has the digits of 1000.
  const rounded = Math.abs(value) < 100 ? Number(value.toPrecision(3)) : Math.round(value);
  const size = Math.abs(rounded);
  if (size === 0) return "0";
  const decimals = size >= 100 ? 0 : size >= 10 ? 1 : size >= 1 ? 2 : Math.min(6, 2 - Math.floor(Math.log10(size)));
  return rounded.toFixed(decimals).replace("-", MINUS);
}

/** Axis labels need no trailing zeros: 40.0 /s is 40 /s. */
export function trimZeros(text: string): string {
  return text.replace(/(\.\d*?)0+(?=\D|$)/, "$1").replace(/\.(?=\D|$)/, "");
}

const TIME_UNITS: [number, string][] = [
  [3600e9, "h"],
  [60e9, "min"],
  [1e9, "s"],
  [1e6, "ms"],
  [1e3, "µs"],
];

/** Nanoseconds with a unit chosen by size. */
export function nanoseconds(value: number | null | undefined): string {
  if (value === null || value === undefined || !Number.isFinite(value)) return MISSING;
  if (value === 0) return "0";
  const size = Math.abs(value);
  // A hundred seconds is still read as seconds: minutes start at two of them.
  const unit = TIME_UNITS.find(([factor, name]) => size >= factor * (name === "min" || name === "h" ? 2 : 0.9995));
  if (unit === undefined) return `${digits(value)}${NARROW_SPACE}ns`;
  return `${digits(value / unit[0])}${NARROW_SPACE}${unit[1]}`;
}

export function milliseconds(value: number | null | undefined): string {
  return value === null || value === undefined ? MISSING : nanoseconds(value * 1e6);
}

export function seconds(value: number | null | undefined): string {
  return value === null || value === undefined ? MISSING : nanoseconds(value * 1e9);
}

const BYTE_UNITS = ["B", "kB", "MB", "GB", "TB"];

/** Bytes with a decimal unit chosen by size. */
export function bytes(value: number | null | undefined): string {
  if (value === null || value === undefined || !Number.isFinite(value)) return MISSING;
  let [size, unit] = [value, 0];
  while (size >= 999.5 && unit + 1 < BYTE_UNITS.length) {
    size /= 1000;
    unit += 1;
  }
  return `${unit === 0 ? count(size) : digits(size)}${NARROW_SPACE}${BYTE_UNITS[unit]}`;
}

/** With `+` or a real minus sign in front. */
export function signed(value: number | null | undefined, format: (value: number) => string = nanoseconds): string {
  if (value === null || value === undefined || !Number.isFinite(value)) return MISSING;
  return value > 0 ? `+${format(value)}` : format(value);
}

/** A share as a percentage. */
export function percent(share: number | null | undefined): string {
  if (share === null || share === undefined || !Number.isFinite(share)) return MISSING;
  const value = share * 100;
  const size = Math.abs(value);
  if (size !== 0 && size < 0.05) return `<${NARROW_SPACE}0.1${NARROW_SPACE}%`;
  const written = size >= 99.95 || size === 0 || Number.isInteger(value) ? value.toFixed(0) : value.toFixed(1);
  return `${written.replace("-", MINUS)}${NARROW_SPACE}%`;
}

/** A part of a change. Where other parts shrank, one part exceeds the whole: it is then all of it, as the server's sentences say. */
export function changeShare(share: number | null | undefined): string {
  return percent(share === null || share === undefined ? null : Math.max(-1, Math.min(1, share)));
}

/** Candidate over baseline: ×3.2. */
export function ratio(value: number | null | undefined): string {
  if (value === null || value === undefined || !Number.isFinite(value)) return MISSING;
  if (value === 0) return "×0";
  if (value >= 1000) return "×\u202f>\u202f999";
  return `×${value >= 100 ? value.toFixed(0) : value >= 10 ? value.toFixed(1) : value.toFixed(2)}`;
}

const THOUSANDS = new Intl.NumberFormat("en", { maximumFractionDigits: 0 });

export function count(value: number | null | undefined): string {
  if (value === null || value === undefined || !Number.isFinite(value)) return MISSING;
  return THOUSANDS.format(value).replaceAll(",", NARROW_SPACE);
}

/** Requests per second. */
export function rate(value: number | null | undefined): string {
  if (value === null || value === undefined || !Number.isFinite(value)) return MISSING;
  return `${value >= 1000 ? count(value) : digits(value)}${NARROW_SPACE}/s`;
}

/** "1 window", "2 windows". */
export function plural(value: number, one: string, many = `${one}s`): string {
  return `${count(value)} ${value === 1 ? one : many}`;
}

const CLOCK = new Intl.DateTimeFormat("en-GB", { hour: "2-digit", minute: "2-digit", second: "2-digit" });
const DAY_AND_CLOCK = new Intl.DateTimeFormat("en-GB", { day: "numeric", month: "short", hour: "2-digit", minute: "2-digit", second: "2-digit" });

/** Local time of day; with the day when it is not today. */
export function moment(unixMs: number, nowMs = Date.now()): string {
  const isToday = new Date(unixMs).toDateString() === new Date(nowMs).toDateString();
  return (isToday ? CLOCK : DAY_AND_CLOCK).format(unixMs);
}

/** "40 s", "12 min", "3 h": how long a stretch of time is. */
export function stretch(ms: number): string {
  const seconds = Math.max(0, Math.round(ms / 1000));
  if (seconds < 120) return `${seconds}${NARROW_SPACE}s`;
  if (seconds < 7200) return `${Math.round(seconds / 60)}${NARROW_SPACE}min`;
  if (seconds < 172_800) return `${Math.round(seconds / 3600)}${NARROW_SPACE}h`;
  return `${Math.round(seconds / 86_400)}${NARROW_SPACE}d`;
}

export function ago(unixMs: number, nowMs = Date.now()): string {
  return `${stretch(nowMs - unixMs)} ago`;
}

/** The first and last characters of a build id, enough to tell two apart. */
export function shortBuild(id: string): string {
  return id.length <= 12 ? id : id.slice(0, 8);
}

/** How a number of CPU nanoseconds is to be read under each normalisation. */
export const PER_WORDS: Record<Per, { short: string; title: string; sentence: string }> = {
  request: { short: "per request", title: "Per request", sentence: "CPU time divided by the requests served in the same time" },
  second: { short: "per second", title: "Per second", sentence: "CPU time divided by the seconds covered by profiles" },
  total: { short: "in total", title: "Total", sentence: "Total CPU time in the range" },
};

/** Splits a path at the `::` that lie outside every bracket. */
function segmentsOf(name: string): string[] {
  const segments: string[] = [];
  let nesting = 0;
  let start = 0;
  for (let at = 0; at < name.length; at += 1) {
    const character = name[at];
    if (character === "<" || character === "(" || character === "[") nesting += 1;
    // An arrow's head, as in `fn() -> T`, closes nothing.
    else if ((character === ">" && name[at - 1] !== "-") || character === ")" || character === "]") nesting -= 1;
    else if (character === ":" && name[at + 1] === ":" && nesting === 0) {
      segments.push(name.slice(start, at));
      start = at + 2;
      at += 1;
    }
  }
  segments.push(name.slice(start));
  return segments;
}

/** The bare name of a type: `Core<T,S>` is Core, `<hyper::Body as core::fmt::Debug>` is Body. */
function bareType(segment: string): string {
  if (!segment.startsWith("<")) return segment.replace(/<.*$/s, "");
  const inner = segment.slice(1, -1);
  const [before, after] = inner.split(/ for /, 2);
  const subject = (after ?? before ?? "").split(" as ", 1)[0]!.replace(/^(?:&|\*|mut |const |dyn |impl )+/, "");
  const last = segmentsOf(subject).at(-1) ?? subject;
  return last.startsWith("<") ? last : last.replace(/<.*$/s, "");
}

/**
 * The last segments of a function's path, with the type a method belongs to and the function a closure lies in:
 * `cart::pricing::price` gives `price`, `tokio::Core<T,S>::poll` gives `Core::poll`, `cart::load::{{closure}}` gives
 * `load::{{closure}}`.
 */
export function shortName(name: string, segments = 1): string {
  const all = segmentsOf(name);
  let first = Math.max(0, all.length - segments);
  while (first > 0 && /^[{<]/.test(all[first]!)) first -= 1;
  const kept = all.slice(first);
  const owner = all[first - 1];
  if (kept[0]!.startsWith("<") && kept.length > 1) kept[0] = bareType(kept[0]!);
  else if (owner !== undefined && /^(?:<|[A-Z])/.test(owner)) kept.unshift(bareType(owner));
  return kept.join("::");
}

/** What stands before the last segment: the module path, or the type with its module. */
export function pathOf(name: string): string {
  return segmentsOf(name).slice(0, -1).join("::");
}

/** Why a sample can lack a function name. Whether a name is still to come, the server does not say. */
export const NAMELESS = "Addresses are named once the debug information of their build has arrived";

/** A sentence of the server in pieces: every second one stood between backticks. A backtick without a partner is text. */
export function codePieces(sentence: string): string[] {
  const pieces = sentence.split("`");
  if (pieces.length % 2 === 1) return pieces;
  const tail = pieces.splice(-2).join("`");
  return [...pieces, tail];
}

/** The server's name for work that belongs to no request. */
export const NO_ROUTE = "(none)";
export const NO_ROUTE_TITLE = "Work outside requests: accepting connections, background tasks";

export function routeName(route: string): string {
  return route === NO_ROUTE ? "(no route)" : route;
}

/** A service and its version, as one word. */
export function releaseName(service: string, version: string): string {
  return version === "" ? service : `${service}@${version}`;
}
