// Reading the server's status answer, whose counters differ between builds. Pure.
import type { LossRow, Status } from "./types";

/** A metric that the server left out, and what to do about it. */
export interface RefusedMetric {
  service: string;
  metric: string;
  shape: string;
  points: number;
  remedy: string;
}

/** What was left out of metrics; those of other subjects than requests are no fault and come last. */
export function refusedIn(status: Pick<Status, "ingest">, limit = 6): RefusedMetric[] {
  const ingest = status.ingest as { refused_metrics?: (RefusedMetric & { reason: string })[] };
  const all = ingest.refused_metrics ?? [];
  const other = (metric: { reason: string }) => Number(metric.reason === "unknown_metric");
  return [...all].sort((a, b) => other(a) - other(b)).slice(0, limit);
}

/** A number of the status answer. */
export interface Counter {
  section: string;
  key: string;
  name: string;
  value: number;
  /** It is one of the losses. */
  isLoss: boolean;
}

/** Kinds of losses that happened. */
export function lossesIn(status: Pick<Status, "losses">): LossRow[] {
  return status.losses.filter((loss) => loss.count > 0);
}

/** The plain numbers of a status answer, two levels deep, named in words. */
export function countersIn(status: Pick<Status, "losses" | "ingest" | "store" | "symbols">): Counter[] {
  const losses = new Set(status.losses.map((loss) => loss.name));
  return (["ingest", "store", "symbols"] as const).flatMap((section) => {
    const values = status[section];
    return Object.entries(values).flatMap(([key, value]) =>
      typeof value === "number" ? [{ section, key, name: key.replaceAll("_", " "), value, isLoss: losses.has(`emberline_${section}_${key}`) }] : [],
    );
  });
}

export interface Received {
  signal: string;
  stored: number;
  duplicate: number;
  bytes: number;
}

/** What arrived, by signal. */
export function receivedIn(status: Pick<Status, "ingest">): Received[] {
  const ingest = status.ingest as Record<string, Partial<Received> | null>;
  return Object.entries(ingest).flatMap(([signal, counts]) =>
    typeof counts?.stored === "number" ? [{ signal, stored: counts.stored, duplicate: counts.duplicate ?? 0, bytes: counts.bytes ?? 0 }] : [],
  );
}

/** A profile of a scraped target. */
export interface Target {
  job: string;
  address: string;
  profile: string;
  state: string;
  last_error: string;
  last_scrape_unix_ms: number;
  samples: number;
  left_out: string;
}

/** Scraped targets, those that are down first. */
export function targetsIn(status: Pick<Status, "ingest">): Target[] {
  const ingest = status.ingest as { scrape?: { targets?: Target[] } };
  const rank = (target: Target) => Number(target.state !== "down");
  return [...(ingest.scrape?.targets ?? [])].sort((a, b) => rank(a) - rank(b));
}

/** Connections of a port of the server. */
export interface PortRow {
  port: string;
  open: number;
  /** Connections and requests refused or ended by the server, by reason; only those that happened. */
  reasons: [string, number][];
}

/** The ports of the server, in the order of the answer. */
export function portsIn(status: Pick<Status, "connections">): PortRow[] {
  type Counts = Record<string, number>;
  const { ports = {} } = status.connections as { ports?: Record<string, { open: number; refused?: Counts; ended?: Counts }> };
  return Object.entries(ports).map(([port, { open, refused = {}, ended = {} }]) => ({
    port,
    open,
    reasons: Object.entries({ ...refused, ...ended })
      .filter(([, times]) => times > 0)
      .map(([reason, times]) => [reason.replaceAll("_", " "), times]),
  }));
}

/** A bounded table of names that senders choose. */
export interface NameTable {
  name: string;
  used: number;
  limit: number;
  isFull: boolean;
  /** Who holds most of it. */
  largest: string;
  /** Names that got no place, by sender. */
  refused: string;
}

/** The tables of names, and who found no place in them. */
export function tablesIn(status: Pick<Status, "ingest">): NameTable[] {
  type Shares = {
    [table: string]: { used: number; limit: number; is_full: boolean; largest_senders: { sender: string; entries: number }[] };
  };
  const ingest = status.ingest as { shares?: { refused?: { table: string; sender: string; count: number }[] } };
  const { refused = [], ...tables } = ingest.shares ?? {};
  return Object.entries(tables as Shares).map(([name, table]) => ({
    name,
    used: table.used,
    limit: table.limit,
    isFull: table.is_full,
    largest: table.largest_senders.map(({ sender, entries }) => `${sender} ${entries}`).join(", "),
    refused: refused
      // Routes, peers and types of profiles share one table of names.
      .filter((row) => (row.table === "workloads") === (name === "workloads"))
      .map(({ sender, table: kind, count: times }) => `${sender} ${times} ${kind.replaceAll("_", " ")}`)
      .join(", "),
  }));
}
