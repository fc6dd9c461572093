// Points per step of time and version, turned into the aligned columns a chart wants. Pure.
import type { Point } from "../types";

export interface Series {
  /** Unix seconds, ascending, evenly spaced. */
  x: number[];
  versions: string[];
  /** One column per version, same order; null where the release reported nothing in that step. */
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

export type Value = (point: Point) => number | null;

/** Of the time that windows cover: a step at the edge of a range, or with a gap, is not a slow one. */
export const requestsPerSecond: Value = (point) => (point.observed_s > 0 ? point.requests / point.observed_s : null);

/** Indices of values with none beside them. */
export function loneWindows(column: ArrayLike<number | null | undefined>): number[] {
  return Array.from(column, (_, at) => at).filter((at) => (column[at] ?? null) !== null && (column[at - 1] ?? null) === null && (column[at + 1] ?? null) === null);
}

/** Seconds on either side of a single point. */
const MARGIN_S = 10;

/** The ends of the time axis. A single point gets some seconds on either side, where uPlot would add a whole day. */
export function axisEnds(x: ArrayLike<number>): [number, number] | [null, null] {
  const first = x[0];
  const last = x[x.length - 1];
  if (first === undefined || last === undefined) return [null, null];
  const margin = first === last ? MARGIN_S : 0;
  return [first - margin, last + margin];
}

/** Columns in the order of `versions`, of points every `stepS` seconds. */
export function align(points: readonly Point[], versions: readonly string[], stepS: number, value: Value): Series {
  if (points.length === 0) return { x: [], versions: [...versions], columns: versions.map(() => []) };
  let first = Infinity;
  let last = -Infinity;
  for (const point of points) {
    first = Math.min(first, point.start_ms);
    last = Math.max(last, point.start_ms);
  }
  const place = (ms: number) => Math.round((ms - first) / 1000 / stepS);
  const length = place(last) + 1;
  const x = Array.from({ length }, (_, at) => first / 1000 + at * stepS);
  const columns = versions.map(() => Array.from<number | null>({ length }).fill(null));
  for (const point of points) {
    const column = columns[versions.indexOf(point.version)];
    if (column !== undefined) column[place(point.start_ms)] = value(point);
  }
  return { x, versions: [...versions], columns };
}
