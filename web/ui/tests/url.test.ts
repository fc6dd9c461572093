import { describe, expect, test } from "vitest";
import { seeded } from "../dev/fixture-data.mjs";
import { decode, decodePath, defaults, elsewhere, encode, FACETS, isMoving, PAGES, SORT_KEYS, toUnixSeconds, type Page, type UrlState } from "../src/url";

function split(path: string): UrlState {
  const at = path.indexOf("?");
  return decode(`/${at < 0 ? path : path.slice(0, at)}`, at < 0 ? "" : path.slice(at));
}

const AWKWARD = ["checkout", "a&b=c", "/cart/{id}", "été ✓", "x?y#z", "100%", "a+b c", "(none)", "now", "%2F"];
const REACHABLE: Page[] = ["home", "compare", "topology", "service", "alerts"];

function randomState(random: () => number): UrlState {
  const pick = <T>(values: readonly T[]): T => values[Math.floor(random() * values.length)]!;
  const page = pick(REACHABLE);
  const text = () => (random() < 0.4 ? null : pick(AWKWARD));
  const time = () => pick(["now", "now-15m", "now-90s", "now-7d", "1700000000", "1700000000.25"]);
  const state = defaults(page);
  Object.assign(state, { service: text(), namespace: text(), from: time(), to: time(), live: random() < 0.5 });
  if (page === "compare") {
    Object.assign(state, {
      baseline: text(), candidate: text(), route: text(), component: pick(["application", "proxy"]), side: pick(["", "server", "client"]), per: pick(["best", "request", "second", "total"]),
      baselineFrom: random() < 0.5 ? null : time(), candidateTo: random() < 0.5 ? null : time(), view: pick(["merged", "split", "table"]), focus: text(), pick: text(), find: text(),
      show: pick(FACETS), code: pick(["mine", "all"]), sort: pick(SORT_KEYS), descending: random() < 0.5, width: pick(["max", "baseline", "candidate"]), root: pick(["top", "bottom"]), tree: random() < 0.5,
    });
  }
  if (page === "topology") Object.assign(state, { select: text(), as: pick(["auto", "map", "table"]) });
  if (page === "alerts") Object.assign(state, { state: pick(["all", "firing"]), alert: text() });
  return state;
}

describe("the address", () => {
  test("reads back exactly what it wrote", () => {
    const random = seeded(42);
    for (let round = 0; round < 2000; round += 1) {
      const state = randomState(random);
      expect(split(encode(state))).toEqual(state);
    }
  });

  test("writes only what differs from the defaults", () => {
    for (const page of REACHABLE) expect(encode(defaults(page))).toBe(page === "home" ? "" : page);
    expect(encode({ ...defaults("compare"), service: "cart", route: "/cart/{id}" })).toBe("compare?service=cart&route=/cart/%7Bid%7D");
  });

  test("knows every page by its path and nothing else", () => {
    for (const page of PAGES) if (page !== "home" && page !== "missing") expect(decode(`/${page}`, "").page).toBe(page);
    expect(decode("/", "").page).toBe("home");
    for (const path of ["/missing", "/home", "/compare/x", "/Compare"]) expect(decode(path, "").page).toBe("missing");
  });

  test("falls back to defaults for values that do not parse, and drops what belongs to another page", () => {
    const state = decode("/compare", "?per=fortnight&view=spiral&from=yesterday&to=now-5x&desc=maybe&select=node&evil=1");
    expect(state).toEqual(defaults("compare"));
  });

  test("carries the scope and nothing else to another page", () => {
    const state = { ...defaults("compare"), service: "cart", focus: "abc", from: "now-6h", live: false };
    expect(elsewhere(state, "topology")).toEqual({ ...defaults("topology"), from: "now-6h", live: false });
  });

  test("accepts the server's own paths only", () => {
    expect(decodePath("/compare?service=cart&baseline=v1")?.baseline).toBe("v1");
    for (const path of ["//evil.example/compare", "https://evil.example", "javascript:alert(1)", "/api/v1/diff"]) expect(decodePath(path)).toBeNull();
  });
});

test("relative times become unix seconds", () => {
  expect(toUnixSeconds("now", 1000)).toBe(1000);
  expect(toUnixSeconds("now-15m", 1000)).toBe(100);
  expect(toUnixSeconds("now-1h", 10_000)).toBe(6400);
  expect(toUnixSeconds("1700000000.5", 0)).toBe(1_700_000_000.5);
});

test("a range that ends in the past does not move", () => {
  expect(isMoving(defaults("compare"))).toBe(true);
  expect(isMoving({ ...defaults("compare"), to: "1700000000" })).toBe(false);
});
