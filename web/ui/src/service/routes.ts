// The order of the routes table, and how many routes there are. Pure.
import { NO_ROUTE } from "../format";
import type { RouteStats } from "../types";

/** Routes that requests came in on. */
export function routeCount(routes: readonly Pick<RouteStats, "route">[]): number {
  return new Set(routes.map((row) => row.route).filter((route) => route !== NO_ROUTE)).size;
}

/** Rows of one route together, busiest route first, newest version first; work outside requests comes last. */
export function groupRoutes(routes: readonly RouteStats[], versions: readonly string[]): RouteStats[][] {
  const groups = new Map<string, RouteStats[]>();
  for (const row of routes) groups.set(row.route, [...(groups.get(row.route) ?? []), row]);
  const requests = (rows: RouteStats[]) => rows.reduce((sum, row) => sum + row.requests, 0);
  const age = (row: RouteStats) => versions.indexOf(row.version);
  const isOutside = (rows: RouteStats[]) => Number(rows[0]!.route === NO_ROUTE);
  return [...groups.values()]
    .map((rows) => rows.sort((a, b) => age(a) - age(b) || (a.component < b.component ? -1 : 1)))
    .sort((a, b) => isOutside(a) - isOutside(b) || requests(b) - requests(a));
}
