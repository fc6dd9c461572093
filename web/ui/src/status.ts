// Reading the server's status answer, whose counters differ between builds. Pure.

/** A metric that the server left out, and what to do about it. */
export interface RefusedMetric {
  service: string;
  metric: string;
  shape: string;
  points: number;
  remedy: string;
}

/** What was left out of metrics; those of other subjects than requests are no fault and come last. */
export function refusedIn(status: Record<string, unknown>, limit = 6): RefusedMetric[] {
  const ingest = status.ingest as { refused_metrics?: (RefusedMetric & { reason: string })[] } | null | undefined;
  const all = ingest?.refused_metrics ?? [];
  const other = (metric: { reason: string }) => Number(metric.reason === "unknown_metric");
  return [...all].sort((a, b) => other(a) - other(b)).slice(0, limit);
}

/** The plain counters of a status answer, two levels deep, named in words. */
export function numbersIn(status: Record<string, unknown>, limit = 16): [string, number][] {
  const found: [string, number][] = [];
  for (const section of ["ingest", "store", "symbols"]) {
    const values = status[section];
    if (typeof values !== "object" || values === null) continue;
    for (const [key, value] of Object.entries(values)) {
      if (typeof value === "number" && found.length < limit) found.push([`${section}: ${key.replaceAll("_", " ")}`, value]);
    }
  }
  return found;
}
