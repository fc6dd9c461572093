// Which rows of the function table are shown, and in which order. Pure.
import { isSignificant } from "../flame/palette";
import type { Confidence, FunctionRow } from "../types";
import type { Facet, SortKey } from "../url";

export interface Selection {
  show: Facet;
  find: string | null;
  code: "mine" | "all";
  sort: SortKey;
  descending: boolean;
  /** Function id kept first whatever the order; null for none. */
  pinned: string | null;
}

const IN_FACET: Record<Facet, (row: FunctionRow) => boolean> = {
  all: () => true,
  significant: (row) => isSignificant(row.confidence),
  up: (row) => isSignificant(row.confidence) && row.delta_total > 0,
  down: (row) => isSignificant(row.confidence) && row.delta_total < 0,
  new: (row) => row.state === "new",
  gone: (row) => row.state === "gone",
};

const CONFIDENCE_ORDER: Record<Confidence, number> = { strong: 3, weak: 2, noise: 1, few: 0 };

function compareBy(key: SortKey): (a: FunctionRow, b: FunctionRow) => number {
  switch (key) {
    case "name":
      return (a, b) => (a.name < b.name ? 1 : a.name > b.name ? -1 : 0);
    case "contribution":
      return (a, b) => Math.abs(a.contribution) - Math.abs(b.contribution);
    case "confidence":
      return (a, b) => CONFIDENCE_ORDER[a.confidence] - CONFIDENCE_ORDER[b.confidence] || b.q_value - a.q_value;
    case "ratio":
      // A new function has no ratio: it ranks above every finite one.
      return (a, b) => (a.ratio ?? Infinity) - (b.ratio ?? Infinity) || 0;
    case "delta_self":
    case "delta_total":
      return (a, b) => Math.abs(a[key]) - Math.abs(b[key]);
    default:
      return (a, b) => a[key] - b[key];
  }
}

/** Rows that pass search and the library switch, before facets. */
export function candidates(rows: readonly FunctionRow[], selection: Pick<Selection, "find" | "code">): FunctionRow[] {
  const wanted = selection.find?.trim().toLowerCase() ?? "";
  return rows.filter(
    (row) => (selection.code === "all" || !row.library) && (wanted === "" || `${row.name} ${row.module}`.toLowerCase().includes(wanted)),
  );
}

/** How many of these rows each facet would show. */
export function facetCounts(rows: readonly FunctionRow[]): Record<Facet, number> {
  const counts: Record<Facet, number> = { all: 0, significant: 0, up: 0, down: 0, new: 0, gone: 0 };
  for (const row of rows) {
    for (const facet of Object.keys(counts) as Facet[]) if (IN_FACET[facet](row)) counts[facet] += 1;
  }
  return counts;
}

/** The rows to show. Equal rows keep the server's order. */
export function selectFunctions(rows: readonly FunctionRow[], selection: Selection): FunctionRow[] {
  const kept = candidates(rows, selection).filter(IN_FACET[selection.show]);
  const order = compareBy(selection.sort);
  const direction = selection.descending ? -1 : 1;
  kept.sort((a, b) => direction * order(a, b));
  const pinned = kept.findIndex((row) => row.id === selection.pinned);
  if (pinned > 0) kept.unshift(...kept.splice(pinned, 1));
  return kept;
}

/** What of the code is shown: all of it too where none is known as own code, because an empty table would say nothing. */
export function shownCode(rows: readonly FunctionRow[], wanted: "mine" | "all"): "mine" | "all" {
  return rows.some((row) => !row.library) ? wanted : "all";
}

/** Why there is no row to show. */
export function emptyWords(rows: readonly FunctionRow[], { show, find, code }: Pick<Selection, "show" | "find" | "code">): string {
  if (rows.length === 0) return "No functions were sampled in this range.";
  const inLibraries = code === "mine" ? candidates(rows, { find, code: "all" }).filter(IN_FACET[show]).length : 0;
  const elsewhere = inLibraries === 0 ? "" : `; ${inLibraries} in library code, which is hidden`;
  if (find !== null) return `No function ${code === "mine" ? "of your own code " : ""}matches “${find}” here${elsewhere}.`;
  if (inLibraries > 0) return `None in your own code${elsewhere}.`;
  return "No significant change of this kind.";
}

/** What the library switch hides, for the line that says so. */
export function hiddenLibraries(rows: readonly FunctionRow[]): { count: number; largest: number } {
  let hidden = 0;
  let largest = 0;
  for (const row of rows) {
    if (!row.library) continue;
    hidden += 1;
    if (isSignificant(row.confidence) && Math.abs(row.delta_self) > Math.abs(largest)) largest = row.delta_self;
  }
  return { count: hidden, largest };
}
