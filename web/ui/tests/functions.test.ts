import { describe, expect, test } from "vitest";
import { diffOf } from "../dev/fixture-data.mjs";
import { badgesOf, chooseReleases, chooseService, namespaceIfNeeded, otherComponent, perOf, routesOf } from "../src/compare/choose";
import { candidates, emptyWords, facetCounts, hiddenLibraries, selectFunctions, shownCode, type Selection } from "../src/compare/functions";
import { sliceInView } from "../src/parts/virtual";
import type { Diff, FunctionRow, Service } from "../src/types";
import { answer } from "./fixture";
import { defaults, pinned, SORT_KEYS } from "../src/url";

const diff = answer<Diff>(diffOf({ route: "/checkout" }));
const rows = diff.functions;
const all: Selection = { show: "all", find: null, code: "all", sort: "contribution", descending: true, pinned: null };
const names = (selected: FunctionRow[]) => selected.map((row) => row.name);

describe("the function table", () => {
  test("shows everything, in the server's order, by default", () => {
    expect(selectFunctions(rows, all)).toEqual(rows);
    expect(rows.length).toBeGreaterThan(20);
  });

  test("facets keep what they say", () => {
    expect(names(selectFunctions(rows, { ...all, show: "new" }))).toEqual(["checkout::pricing::tier_discount"]);
    expect(names(selectFunctions(rows, { ...all, show: "gone" }))).toEqual(["checkout::pricing::legacy_tax_table"]);
    for (const row of selectFunctions(rows, { ...all, show: "up" })) expect(row.delta_total).toBeGreaterThan(0);
    for (const row of selectFunctions(rows, { ...all, show: "significant" })) expect(["strong", "weak"]).toContain(row.confidence);
  });

  test("counts say what each facet would show", () => {
    const counts = facetCounts(rows);
    for (const [facet, expected] of Object.entries(counts)) {
      expect(selectFunctions(rows, { ...all, show: facet as Selection["show"] })).toHaveLength(expected);
    }
  });

  test("only my code hides libraries and says what it hides", () => {
    const mine = selectFunctions(rows, { ...all, code: "mine" });
    expect(mine.some((row) => row.library)).toBe(false);
    const hidden = hiddenLibraries(rows);
    expect(hidden.count + mine.length).toBe(rows.length);
    expect(hidden.largest).toBeGreaterThan(0);
  });

  test("only my code shows all of it where none is known, and an empty table says no more than is true", () => {
    const foreign = rows.map((row) => ({ ...row, library: true }));
    expect(shownCode(foreign, "mine")).toBe("all");
    expect(shownCode(rows, "mine")).toBe("mine");
    const words = (of: FunctionRow[], selection: Partial<Selection>) => emptyWords(of, { ...all, ...selection });
    expect(words([], { code: "mine" })).toBe("No functions were sampled in this range.");
    expect(words(foreign, { code: "mine", show: "new" })).toBe("None in your own code; 1 in library code, which is hidden.");
    expect(words(foreign, { code: "mine", find: "price_b" })).toBe("No function of your own code matches “price_b” here; 1 in library code, which is hidden.");
    expect(words(rows, { find: "nothing" })).toBe("No function matches “nothing” here.");
    expect(words([], { show: "new" })).toBe("No functions were sampled in this range.");
  });

  test("search looks at names and modules", () => {
    expect(names(candidates(rows, { find: "PRICE_b", code: "all" }))).toEqual(["checkout::pricing::price_basket"]);
    expect(candidates(rows, { find: "libc.so", code: "all" }).length).toBeGreaterThan(0);
    expect(candidates(rows, { find: "nothing has this name", code: "all" })).toEqual([]);
  });

  test("every sort order is total and turns round", () => {
    for (const sort of SORT_KEYS) {
      const down = selectFunctions(rows, { ...all, sort });
      const up = selectFunctions(rows, { ...all, sort, descending: false });
      expect(down).toHaveLength(rows.length);
      expect(new Set(names(down)).size).toBe(new Set(names(rows)).size);
      const key = (row: FunctionRow) => (sort === "name" ? row.name : sort === "ratio" ? String(row.ratio ?? Infinity) : "");
      if (sort === "name") expect(names(up)).toEqual([...names(rows)].sort().reverse());
      if (sort === "ratio") expect(key(down[0]!)).toBe("Infinity");
    }
    const byTotal = selectFunctions(rows, { ...all, sort: "total_b" }).map((row) => row.total_b);
    expect(byTotal).toEqual([...byTotal].sort((a, b) => b - a));
  });

  test("the guilty function comes first when pinned, and only if it passes the filter", () => {
    const last = rows[rows.length - 1]!;
    expect(selectFunctions(rows, { ...all, pinned: last.id })[0]).toBe(last);
    expect(selectFunctions(rows, { ...all, pinned: last.id, find: "price_basket" })).toHaveLength(1);
  });

  test("selecting does not disturb the answer it selects from", () => {
    const before = names([...rows]);
    selectFunctions(rows, { ...all, sort: "name", pinned: rows[5]!.id });
    expect(names([...rows])).toEqual(before);
  });

  test("only rows near the view are held in the page", () => {
    expect(sliceInView(0, 500, 38, 50_000)).toEqual({ first: 0, last: 26 });
    const middle = sliceInView(380_000, 500, 38, 50_000);
    expect(middle.last - middle.first).toBeLessThan(45);
    expect(middle.first).toBeLessThanOrEqual(10_000);
    expect(sliceInView(1e9, 500, 38, 10)).toEqual({ first: 10, last: 10 });
  });
});

describe("what to compare when the address does not say", () => {
  const release = (version: string, first_seen_ms: number) => ({ version, first_seen_ms });
  const releases = [release("v1", 100), release("v3", 300), release("v2", 200)];

  test("the newest release against the one before it", () => {
    expect(chooseReleases(releases, null, null)).toEqual({ baseline: "v2", candidate: "v3" });
    expect(chooseReleases(releases, null, "v2")).toEqual({ baseline: "v1", candidate: "v2" });
    expect(chooseReleases(releases, "v1", null)).toEqual({ baseline: "v1", candidate: "v3" });
    expect(chooseReleases(releases, "v3", null)).toEqual({ baseline: "v3", candidate: "v2" });
  });

  test("the oldest release is compared with a newer one, a lone release with nothing", () => {
    expect(chooseReleases(releases, null, "v1")).toEqual({ baseline: "v3", candidate: "v1" });
    expect(chooseReleases([release("v1", 1)], null, null)).toEqual({ baseline: null, candidate: "v1" });
    expect(chooseReleases([], null, null)).toEqual({ baseline: null, candidate: null });
  });

  test("the service with the youngest second release, else the busiest", () => {
    const service = (name: string, rps: number, ages: number[], namespace = "shop") =>
      ({ namespace, service: name, requests_per_second: rps, releases: ages.map((first_seen_ms) => ({ first_seen_ms })) }) as unknown as Service;
    expect(chooseService([service("a", 90, [1]), service("b", 1, [1, 5]), service("c", 1, [1, 9])])?.service).toBe("c");
    expect(chooseService([service("a", 1, [1]), service("b", 9, [1])])?.service).toBe("b");
    expect(chooseService([])).toBeNull();
    const twins = [service("a", 1, [1], "x"), service("a", 1, [1], "y"), service("b", 1, [1])];
    expect(namespaceIfNeeded(twins, twins[0]!)).toBe("x");
    expect(namespaceIfNeeded(twins, twins[2]!)).toBeNull();
  });

  test("code of another kind is pointed at only when the kind asked for was not seen", () => {
    expect(otherComponent([{ components: ["proxy"] }], "application")).toBe("proxy");
    expect(otherComponent([{ components: ["proxy"] }, { components: ["application"] }], "application")).toBeNull();
    expect(otherComponent([], "application")).toBeNull();
  });

  test("work outside requests has no cost per request", () => {
    expect([perOf("(none)", "request"), perOf("(none)", "total"), perOf("/cart", "request"), perOf(null, "request")]).toEqual(["second", "total", "request", "request"]);
  });

  test("routes come busiest first, once each", () => {
    expect(routesOf([{ route: "/a", requests: 1 }, { route: "/b", requests: 5 }, { route: "/a", requests: 9 }])).toEqual(["/a", "/b"]);
  });
});

describe("warnings beside a comparison", () => {
  const badges = (a: object, b: object) =>
    badgesOf({ baseline: { ...diff.baseline, ...a }, candidate: { ...diff.candidate, ...b } }).map((badge) => badge.text);

  test("none when both sides are alike", () => expect(badges({}, {})).toEqual([]));
  test("load that differs", () => expect(badges({ requests: 10_000, seconds: 100 }, { requests: 2500, seconds: 100 })).toEqual(["load differs ×4.0"]));
  test("symbols that are missing", () => expect(badges({}, { resolved_ratio: 0.71 })).toEqual(["candidate: 29 % of samples wait for symbols"]));
  test("no requests", () => expect(badges({ requests: 0 }, {})).toEqual(["baseline: no requests counted"]));
});

test("a copied link shows the receiver the same range", () => {
  const state = pinned({ ...defaults("compare"), service: "cart" }, 1_700_003_600_000);
  expect([state.from, state.to]).toEqual(["1700000000", "1700003600"]);
});
