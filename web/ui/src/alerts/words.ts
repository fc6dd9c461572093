// Evidence of an alert in plain words. Pure.
import { count, digits, milliseconds, signed } from "../format";
import type { Alert, AlertStatus } from "../types";

const ORDER: Record<AlertStatus, number> = { firing: 0, suspected: 1, recovering: 2, resolved: 3 };

export const STATE_WORDS: Record<AlertStatus, string> = {
  firing: "Firing",
  suspected: "Suspected",
  recovering: "Recovering",
  resolved: "Resolved",
};

export const STATE_MARKS: Record<AlertStatus, string> = { firing: "▲", suspected: "?", recovering: "↘", resolved: "✓" };

/** Firing first, then by what changed last. */
export function inOrder(alerts: readonly Alert[]): Alert[] {
  return [...alerts].sort((a, b) => ORDER[a.state] - ORDER[b.state] || b.updated_ms - a.updated_ms);
}

/** The false-alarm rate as "1 in 1000". */
export function oneIn(alpha: number): string {
  return alpha > 0 && alpha < 1 ? `1 in ${count(Math.round(1 / alpha))}` : "unknown";
}

/** How strong the evidence is against what is needed. */
export function evidenceWords(alert: Pick<Alert, "e_value" | "alpha" | "windows">): string {
  const needed = alert.alpha > 0 ? 1 / alert.alpha : Infinity;
  const size = alert.e_value >= 1e6 ? "over a million" : alert.e_value >= 100 ? count(Math.round(alert.e_value)) : digits(alert.e_value);
  const times = alert.windows === 1 ? "1 window" : `${count(alert.windows)} windows`;
  return (
    `The evidence is ${size} to 1 after ${times}; ${count(Math.round(needed))} to 1 is needed. ` +
    `On an edge where nothing changed, an alert like this fires at most ${oneIn(alert.alpha)} times, however long it is watched.`
  );
}

export function modeWords(mode: Alert["mode"]): string {
  return mode === "concurrent"
    ? "Both releases were live: each window is compared with the same window of the baseline."
    : "The releases were not live at the same time: this compares before with after, so environment drift is possible.";
}

/** Where the added time was spent, as far as both sides tell. */
export function splitWords(split: Alert["client_server"]): string {
  const { client_delta_ms: client, server_delta_ms: server } = split;
  if (client === null && server === null) return "Neither side reported a shift.";
  if (server === null) return `Callers waited ${signed(client, milliseconds)}; the server side is not reported.`;
  if (client === null) return `The server side took ${signed(server, milliseconds)}; the client side is not reported.`;
  const between = client - server;
  const near = Math.abs(between) < Math.max(0.15 * Math.abs(client), 0.05);
  return (
    `Callers waited ${signed(client, milliseconds)}, the server took ${signed(server, milliseconds)}: ` +
    (near ? "the time is spent in the service itself." : `${signed(between, milliseconds)} is spent in the network or the proxies in between.`)
  );
}
