import { describe, expect, test } from "vitest";
import { changeShare, codePieces, count, digits, milliseconds, nanoseconds, pathOf, percent, rate, ratio, releaseName, routeName, shortBuild, shortName, signed, stretch, trimZeros } from "../src/format";

const plain = (text: string) => text.replaceAll("\u202f", " ").replaceAll("\u2212", "-");

describe("times", () => {
  test.each([
    [0, "0"],
    [12, "12.0 ns"],
    [950, "950 ns"],
    [999.6, "1.00 µs"],
    [41_300, "41.3 µs"],
    [4_130_000, "4.13 ms"],
    [999_800_000, "1.00 s"],
    [61e9, "61.0 s"],
    [180e9, "3.00 min"],
    [-4_130_000, "-4.13 ms"],
  ])("%d ns reads %s", (value, text) => expect(plain(nanoseconds(value))).toBe(text));

  test("a missing value is a dash, never a zero", () => {
    for (const format of [nanoseconds, milliseconds, percent, ratio, count, rate, signed]) {
      expect(format(null)).toBe("–");
      expect(format(undefined)).toBe("–");
    }
    expect(nanoseconds(Number.NaN)).toBe("–");
    expect(signed(Infinity)).toBe("–");
  });

  test("changes carry their sign", () => {
    expect(plain(signed(4_130_000))).toBe("+4.13 ms");
    expect(plain(signed(-4_130_000))).toBe("-4.13 ms");
    expect(signed(0)).toBe("0");
  });

  test("stretches", () => {
    expect([30_000, 600_000, 10_000_000, 400_000_000].map((ms) => plain(stretch(ms)))).toEqual(["30 s", "10 min", "3 h", "5 d"]);
  });
});

test("numbers keep three digits without an exponent", () => {
  expect([0, 0.00123, 0.5, 1, 12.34, 123.4, 12_345].map((value) => plain(digits(value)))).toEqual(["0", "0.00123", "0.500", "1.00", "12.3", "123", "12345"]);
});

test("shares and ratios", () => {
  expect([0, 0.0002, 0.0021, 0.5, 1, -0.025].map((share) => plain(percent(share)))).toEqual(["0 %", "< 0.1 %", "0.2 %", "50 %", "100 %", "-2.5 %"]);
  expect([0, 1, 3.219, 14.25, 250, 5000].map((value) => plain(ratio(value)))).toEqual(["×0", "×1.00", "×3.22", "×14.3", "×250", "× > 999"]);
});

test("a part of a change is never more than the change", () => {
  expect([1.0744, 1, 0.42, 0, -1.6].map((share) => plain(changeShare(share)))).toEqual(["100 %", "100 %", "42 %", "0 %", "-100 %"]);
  expect([changeShare(null), changeShare(undefined), changeShare(Number.NaN)]).toEqual(["–", "–", "–"]);
});

test("counts group digits and rates say per second", () => {
  expect(plain(count(1_234_567))).toBe("1 234 567");
  expect(plain(rate(24.13))).toBe("24.1 /s");
});

test("axis labels lose trailing zeros only", () => {
  expect(["40.0\u202f/s", "5.00\u202fms", "2.50\u202fms", "100\u202fµs", "0"].map((text) => plain(trimZeros(text)))).toEqual(["40 /s", "5 ms", "2.5 ms", "100 µs", "0"]);
});

describe("function names", () => {
  test.each([
    ["checkout::pricing::price_basket", "price_basket"],
    ["checkout::handlers::cart::{{closure}}", "cart::{{closure}}"],
    ["checkout::handlers::cart::{{closure}}::{{closure}}", "cart::{{closure}}::{{closure}}"],
    ["<hyper_util::server::Conn<I,S> as core::future::future::Future>::poll", "Conn::poll"],
    ["<&mut T as core::fmt::Write>::write_str", "T::write_str"],
    ["<impl core::fmt::Debug for app::Order>::fmt", "Order::fmt"],
    ["tokio::runtime::task::core::Core<T,S>::poll", "Core::poll"],
    ["alloc::vec::Vec<T,A>::extend_from_slice", "Vec::extend_from_slice"],
    ["app::run::<fn(u8) -> alloc::string::String>", "run::<fn(u8) -> alloc::string::String>"],
    ["main", "main"],
    ["0x3d63f443", "0x3d63f443"],
    ["", ""],
  ])("%s is short for %s", (name, short) => expect(shortName(name)).toBe(short));

  test("more segments keep more of the path", () => {
    expect(shortName("checkout::pricing::price_basket", 2)).toBe("pricing::price_basket");
    expect(shortName("a::b", 5)).toBe("a::b");
    expect(pathOf("checkout::pricing::price_basket")).toBe("checkout::pricing");
    expect(pathOf("main")).toBe("");
  });
});

test("names of code in a sentence stand at odd places", () => {
  expect(codePieces("v2 is slower; `app::price` takes 3 ms more")).toEqual(["v2 is slower; ", "app::price", " takes 3 ms more"]);
  expect(codePieces("`a` and `b`")).toEqual(["", "a", " and ", "b", ""]);
  expect(codePieces("no code here")).toEqual(["no code here"]);
  expect(codePieces("a lone ` stays")).toEqual(["a lone ` stays"]);
  expect(codePieces("`a` and a lone ` stays")).toEqual(["", "a", " and a lone ` stays"]);
});

test("releases, routes and builds", () => {
  expect(["(none)", "/cart/{id}"].map(routeName)).toEqual(["(no route)", "/cart/{id}"]);
  expect(releaseName("cart", "v2")).toBe("cart@v2");
  expect(releaseName("load generator", "")).toBe("load generator");
  expect(shortBuild("3f9a1c52e0b7d4468815a2c9d07e6b31f0a95c44")).toBe("3f9a1c52");
});
