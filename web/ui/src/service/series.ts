// Points per window and version, turned into the aligned columns a chart wants. Pure.
import type { Point } from "../types";

export interface Series {
  /** Unix seconds, ascending, evenly spaced. */
  x: number[];
  versions: string[];
  /** One column per version, same order; null where the release reported no such window. */
  columns: (number | null)[][];
}

const CLOCK = new Intl.DateTimeFormat("en-GB", { hour: "2-digit", minute: "2-digit" });
const CLOCK_SECONDS = new Intl.DateTimeFormat("en-GB", { hour: "2-digit", minute: "2-digit", second: "2-digit" });
const DAY_AND_CLOCK = new Intl.DateTimeFormat("en-GB", { day: "numeric", month: "short", hour: "2-digit", minute: "2-digit" });

/** Local times for the ticks of an axis, as short as they can be without two that read the same. */
export function tickLabels(unixSeconds: readonly number[]): string[] {
  const isWithinMinutes = unixSeconds.some((at) => at % 60 !== 0);
  const labels = unixSeconds.map((at) => (isWithinMinutes ? CLOCK_SECONDS : CLOCK).format(at * 1000));
  return new Set(labels).size === labels.length ? labels : unixSeconds.map((at) => DAY_AND_CLOCK.format(at * 1000));
}

export const WINDOW_MS = 10_000;

/** Charts wider than this are merged: more points than pixels cost time and show nothing. */
const MOST_POINTS = 720;

export type Value = (point: Point) => number | null;

export const requestsPerSecond: Value = (point) => point.requests / (WINDOW_MS / 1000);

/** Indices of values with none beside them. */
export function loneWindows(column: ArrayLike<number | null | undefined>): number[] {
  return Array.from(column, (_, at) => at).filter((at) => (column[at] ?? null) !== null && (column[at - 1] ?? null) === null && (column[at + 1] ?? null) === null);
}

/** The ends of the time axis. A single window gets one on either side, where uPlot would add a whole day. */
export function axisEnds(x: ArrayLike<number>): [number, number] | [null, null] {
  const first = x[0];
  const last = x[x.length - 1];
  if (first === undefined || last === undefined) return [null, null];
  const margin = first === last ? WINDOW_MS / 1000 : 0;
  return [first - margin, last + margin];
}

/**
 * Columns in the order of `versions`. Long ranges are thinned by keeping the first window of each stretch for values
 * that cannot be averaged (quantiles), never by averaging them.
 */
export function align(points: readonly Point[], versions: readonly string[], value: Value): Series {
  if (points.length === 0) return { x: [], versions: [...versions], columns: versions.map(() => []) };
  let first = Infinity;
  let last = -Infinity;
  for (const point of points) {
    first = Math.min(first, point.window_ms);
    last = Math.max(last, point.window_ms);
  }
  const windows = Math.round((last - first) / WINDOW_MS) + 1;
  const step = Math.max(1, Math.ceil(windows / MOST_POINTS));
  const length = Math.ceil(windows / step);
  const x = Array.from({ length }, (_, at) => (first + at * step * WINDOW_MS) / 1000);
  const columns = versions.map(() => Array.from<number | null>({ length }).fill(null));
  for (const point of points) {
    const column = columns[versions.indexOf(point.version)];
    const at = Math.floor((point.window_ms - first) / WINDOW_MS / step);
    if (column !== undefined && column[at] === null) column[at] = value(point);
  }
  return { x, versions: [...versions], columns };
}
