// House rules that no linter rule covers.
import { describe, expect, test } from "vitest";

const SOURCES = import.meta.glob<string>("../src/**/*.{ts,tsx,css}", { query: "?raw", import: "default", eager: true });

describe.each(Object.entries(SOURCES))("%s", (_, text) => {
  test("treats names from the network as text only", () => {
    expect(text).not.toMatch(/innerHTML|outerHTML|insertAdjacentHTML|document\.write|createContextualFragment|DOMParser|srcdoc/);
  });

  test("names no other origin", () => {
    expect(text.match(/https?:\/\/(?!\$?\{location)[^\s"'`)]*/g) ?? []).toEqual([]);
  });

});

// What is generated is as long as the API.
describe.each(Object.entries(SOURCES).filter(([path]) => !path.endsWith(".generated.ts")))("%s", (_, text) => {
  test("holds one idea", () => {
    expect(text.split("\n").length).toBeLessThan(600);
  });
});

test("there are sources to look at", () => {
  expect(Object.keys(SOURCES).length).toBeGreaterThan(40);
});
