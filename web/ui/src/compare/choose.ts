// What to compare when the address does not say. Pure.
import { NAMELESS, NO_ROUTE } from "../format";
import type { AskedPer } from "../url";
import type { Component, Coverage, Diff, ReleaseStats, RouteStats, Service } from "../types";

/** The service whose newest release is youngest among those with two releases; otherwise the busiest. */
export function chooseService(services: readonly Service[]): Service | null {
  const newest = (service: Service) => Math.max(...service.releases.map((release) => release.first_seen_ms));
  const comparable = services.filter((service) => service.releases.length > 1);
  if (comparable.length > 0) return comparable.reduce((best, next) => (newest(next) > newest(best) ? next : best));
  const [first, ...rest] = services;
  if (first === undefined) return null;
  return rest.reduce((best, next) => (next.requests_per_second > best.requests_per_second ? next : best), first);
}

/** The namespace has to be said only when the name alone could mean two services. */
export function namespaceIfNeeded(services: readonly Service[], chosen: Service): string | null {
  return services.filter((other) => other.service === chosen.service).length > 1 ? chosen.namespace : null;
}

/** Baseline and candidate as asked, filled up with the newest release and the one before it. */
export function chooseReleases(
  releases: readonly Pick<ReleaseStats, "version" | "first_seen_ms">[],
  baseline: string | null,
  candidate: string | null,
): { baseline: string | null; candidate: string | null } {
  const byAge = [...releases].sort((a, b) => b.first_seen_ms - a.first_seen_ms);
  const chosen = candidate ?? byAge.find((release) => release.version !== baseline)?.version ?? null;
  const at = byAge.findIndex((release) => release.version === chosen);
  const before = byAge.slice(at + 1).find((release) => release.version !== chosen) ?? byAge.find((release) => release.version !== chosen);
  return { baseline: baseline ?? before?.version ?? null, candidate: chosen };
}

/** Routes of a service, busiest first. */
export function routesOf(routes: readonly Pick<RouteStats, "route" | "requests">[]): string[] {
  const requests = new Map<string, number>();
  for (const { route, requests: seen } of routes) requests.set(route, (requests.get(route) ?? 0) + seen);
  return [...requests].sort((a, b) => b[1] - a[1] || (a[0] < b[0] ? -1 : 1)).map(([route]) => route);
}

/** Work outside requests has no cost per request: it is compared per second. */
export function perOf(route: string | null, per: AskedPer): AskedPer {
  return route === NO_ROUTE && per === "request" ? "second" : per;
}

/** Why CPU is not shown as it was asked for, in a sentence; null when it is. */
export function perNote(asked: AskedPer, diff: Pick<Diff, "per" | "note" | "baseline" | "candidate">): string | null {
  if (diff.note !== null) return `CPU: ${diff.note}`;
  if (asked !== "best" || diff.per === "request") return null;
  const why = [diff.baseline, diff.candidate].flatMap((side) => {
    const { missing } = side.coverage;
    return missing === null ? [] : [`${side.version} ${MISSING_WORDS[missing]}`];
  });
  return `CPU per request is unavailable${why.length > 0 ? ` (${why.join(", ")})` : ""}: compared per second`;
}

const MISSING_WORDS: Record<NonNullable<Coverage["missing"]>, string> = {
  requests: "sent no requests",
  profiles: "sent no profiles",
  both: "sent neither requests nor profiles",
  same_time: "sent requests and profiles, but never for the same time",
};

/** The component whose code was seen when the one asked for was not; null when there is nothing to point at. */
export function otherComponent(releases: readonly Pick<ReleaseStats, "components">[], asked: Component): Component | null {
  const seen = releases.flatMap((release) => release.components);
  return seen.includes(asked) ? null : (seen[0] ?? null);
}

export interface Badge {
  text: string;
  title: string;
}

const LOAD_FACTOR = 2;
const RESOLVED_ENOUGH = 0.98;

/** What a careful reader should know before trusting the comparison. */
export function badgesOf(diff: Pick<Diff, "baseline" | "candidate">): Badge[] {
  const badges: Badge[] = [];
  const [a, b] = [diff.baseline, diff.candidate];
  const load = (side: typeof a) => (side.seconds > 0 ? side.requests / side.seconds : 0);
  const [loadA, loadB] = [load(a), load(b)];
  if (loadA > 0 && loadB > 0) {
    const factor = Math.max(loadA / loadB, loadB / loadA);
    if (factor > LOAD_FACTOR) {
      badges.push({
        text: `load differs ×${factor.toFixed(1)}`,
        title: "The two releases served very different rates. This alone can change the cost per request.",
      });
    }
  }
  for (const [name, side] of [["baseline", a], ["candidate", b]] as const) {
    if (side.samples > 0 && side.resolved_ratio < RESOLVED_ENOUGH) {
      badges.push({
        text: `${name}: ${Math.round((1 - side.resolved_ratio) * 100)} % of samples wait for symbols`,
        title: `${NAMELESS}. Such frames show as addresses and cannot be matched between builds.`,
      });
    }
    if (side.requests === 0) badges.push({ text: `${name}: no requests counted`, title: "Without requests there is no cost per request." });
  }
  return badges;
}
