import { describe, expect, test } from "vitest";
import { diffOf } from "../dev/fixture-data.mjs";
import { fillsOf, fullChange, glyphOf, PALETTES, Shade, shadeOf, shadeOfShare, shareOfChange, STEPS, type ChangeScale } from "../src/flame/palette";
import { fromDiff, nameOf } from "../src/flame/tree";
import type { Diff } from "../src/types";
import { answer } from "./fixture";
import { contrast, distance, VISIONS } from "./color-vision";

describe.each(["light", "dark"] as const)("the %s palette", (theme) => {
  const palette = PALETTES[theme];

  test.each(Object.entries(VISIONS))("keeps less and more apart for %s vision", (_, vision) => {
    expect(distance(palette.less, palette.more, vision)).toBeGreaterThanOrEqual(80);
    expect(distance(palette.less, palette.same, vision)).toBeGreaterThanOrEqual(30);
    expect(distance(palette.more, palette.same, vision)).toBeGreaterThanOrEqual(50);
    expect(distance(palette.fresh, palette.more, vision)).toBeGreaterThanOrEqual(50);
  });

  test("carries readable labels on every fill", () => {
    // Smears are too narrow for labels.
    for (const fill of fillsOf(palette).filter((_, shade) => shade !== Shade.smear)) expect(contrast(fill, palette.text)).toBeGreaterThanOrEqual(4.5);
  });

  test("grows steadily from same to either end", () => {
    const fills = fillsOf(palette);
    for (let step = 1; step <= STEPS; step += 1) {
      expect(distance(fills[STEPS + step]!, palette.same, null)).toBeGreaterThan(distance(fills[STEPS + step - 1]!, palette.same, null));
      expect(distance(fills[STEPS - step]!, palette.same, null)).toBeGreaterThan(distance(fills[STEPS - step + 1]!, palette.same, null));
    }
    expect(fills[0]).toBe(palette.less);
    expect(fills[2 * STEPS]).toBe(palette.more);
  });
});

test("the test itself would catch the usual green and red", () => {
  expect(distance("#00aa00", "#c80000", VISIONS.deutan)).toBeLessThan(20);
});

describe("what a frame's colour means", () => {
  const diff = answer<Diff>(diffOf({ route: "/checkout" }));
  const tree = fromDiff(diff);
  const scale: ChangeScale = { full: fullChange(tree.totalA[0]!, tree.totalB[0]!), functions: diff.functions, isJudged: true };
  const shadeNamed = (end: string, of = scale) => shadeOf(tree, tree.name.findIndex((_, node) => nameOf(tree, node).endsWith(end)), of);

  test("a frame that carries the whole increase is fully orange, as is the root", () => {
    expect(shadeNamed("price_basket")).toBeGreaterThanOrEqual(2 * STEPS - 1);
    expect(shadeOf(tree, 0, scale)).toBe(2 * STEPS);
  });

  test("a new function is violet, a function that went is blue, a stable one is grey", () => {
    expect(shadeNamed("tier_discount")).toBe(Shade.fresh);
    expect(shadeNamed("legacy_tax_table")).toBeLessThan(STEPS);
    expect(shadeNamed("receipt::render")).toBe(Shade.unsure);
  });

  test("nothing is coloured that the statistics do not stand by, however large", () => {
    const doubtful = { ...scale, isJudged: false, functions: diff.functions.map((row) => ({ ...row, confidence: "few" as const })) };
    for (let node = 0; node < tree.size; node += 1) expect(shadeOf(tree, node, doubtful)).toBe(Shade.unsure);
  });

  test("the share is of the total change, not of the frame: a small frame that triples stays pale", () => {
    expect(shareOfChange(3e6, { ...scale, full: 4e6 })).toBe(0.75);
    expect(shareOfChange(0.02e6, { ...scale, full: 4e6 })).toBeCloseTo(0.005);
    expect(shareOfChange(-9e6, { ...scale, full: 4e6 })).toBe(-1);
  });

  test("a total that hardly changed does not turn noise into full colour", () => {
    expect(fullChange(100, 100.001)).toBe(0.05 * 100.001);
    expect(fullChange(100, 300)).toBe(200);
    expect(fullChange(0, 0)).toBeGreaterThan(0);
  });

  test("shades order like shares", () => {
    const shades = [-1, -0.4, -0.1, 0, 0.1, 0.4, 1].map(shadeOfShare);
    expect(shades).toEqual([...shades].sort((a, b) => a - b));
    expect(new Set(shades).size).toBe(7);
  });

  test("the sign is a shape too", () => {
    expect([glyphOf(1), glyphOf(-1), glyphOf(0)]).toEqual(["▲", "▼", ""]);
  });
});
