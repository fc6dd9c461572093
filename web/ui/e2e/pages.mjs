// Opens the pages of a running server in headless Chromium and fails on anything that a user would see go wrong.
//   BASE_URL=http://127.0.0.1:4040 OUT=/tmp/shots node e2e/pages.mjs
// Prints one JSON line per page, then one with `"page":"summary"`; leaves <page>.png and <page>-narrow.png in OUT.
// SERVICE picks the service (default: what Compare chooses); WAIT_MS bounds each wait (default 30000);
// NEED_DIFF=0 accepts a server that has seen one release only; COLOR_SCHEME=dark looks at the dark theme.
import { mkdirSync, readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { join } from "node:path";
import { openBrowser, watchedPage } from "./browser.mjs";

const base = (process.env.BASE_URL ?? process.argv[2] ?? "").replace(/\/$/, "");
const out = process.env.OUT ?? process.argv[3] ?? "";
if (base === "" || out === "") {
  console.error("usage: BASE_URL=http://127.0.0.1:4040 OUT=<directory> node e2e/pages.mjs");
  process.exit(2);
}
const waitMs = Number(process.env.WAIT_MS ?? 30_000);
const needsDiff = process.env.NEED_DIFF !== "0";
const service = process.env.SERVICE ?? "";
const colorScheme = process.env.COLOR_SCHEME === "dark" ? "dark" : "light";
const scope = service === "" ? "" : `?service=${encodeURIComponent(service)}`;
const axe = readFileSync(createRequire(import.meta.url).resolve("axe-core/axe.min.js"), "utf8");
mkdirSync(out, { recursive: true });

function assert(condition, message) {
  if (!condition) throw new Error(message);
}

const text = (page, selector) => page.locator(selector).first().textContent();

/** Focuses the flame graph and walks it by keys; the status line must follow. */
async function walkFlameGraph(page) {
  const graph = page.locator(".flame-scroller").first();
  await graph.focus();
  const said = [await text(page, ".flame-status")];
  for (const key of ["ArrowDown", "ArrowDown", "ArrowRight", "ArrowUp"]) {
    await page.keyboard.press(key);
    await page.waitForTimeout(60);
    said.push(await text(page, ".flame-status"));
  }
  assert(said[1] !== said[0], `ArrowDown did not move the cursor: ${said[0]}`);
  await page.keyboard.press("Home");
  await page.keyboard.press("ArrowDown");
  await page.keyboard.press("Enter");
  await page.locator(".crumbs").waitFor({ timeout: waitMs });
  assert(page.url().includes("focus="), "Enter did not put the zoom into the address");
  await page.keyboard.press("Escape");
  await page.waitForFunction(() => !location.search.includes("focus="), null, { timeout: waitMs });
  await page.goBack();
  await page.waitForFunction(() => location.search.includes("focus="), null, { timeout: waitMs });
  await page.goForward();
  await page.waitForFunction(() => !location.search.includes("focus="), null, { timeout: waitMs });
  return said;
}

/** True when the canvas holds more than one colour. */
function isPainted() {
  const canvas = document.querySelector(".flame-layers canvas");
  const { data } = canvas.getContext("2d").getImageData(0, 0, canvas.width, Math.min(canvas.height, 60));
  const first = data.slice(0, 4).join();
  for (let at = 0; at < data.length; at += 64) if (data.slice(at, at + 4).join() !== first) return true;
  return false;
}

const PAGES = {
  async compare(page) {
    await page.locator(needsDiff ? '.compare[data-ready="true"] .verdict' : ".flame-scroller").first().waitFor({ timeout: waitMs });
    await page.locator(".flame-scroller").first().waitFor({ timeout: waitMs });
    await page.waitForFunction(isPainted, null, { timeout: waitMs });
    const found = { statuses: await walkFlameGraph(page) };
    if (!needsDiff) return found;
    assert((await page.locator(".function-row").count()) > 0, "the table of changed functions is empty");
    await page.locator(".function-row").first().click();
    await page.waitForFunction(() => location.search.includes("pick="), null, { timeout: waitMs });
    await page.locator(".function-row").first().click();
    await page.waitForFunction(() => !location.search.includes("pick="), null, { timeout: waitMs });
    await page.mouse.move(1, 1);
    const guilty = page.locator(".function-row.is-guilty .function-name");
    return {
      ...found,
      service: await page.locator(".service-picker select").evaluate((select) => select.selectedOptions[0].textContent),
      judgement: await page.locator(".verdict").getAttribute("data-judgement"),
      sentence: await text(page, ".verdict-sentence"),
      guilty: (await guilty.count()) > 0 ? await guilty.first().textContent() : null,
    };
  },
  async topology(page) {
    await page.locator('.topology[data-ready="true"] .card').first().waitFor({ timeout: waitMs });
    const found = { nodes: await page.locator(".card").count(), edges: await page.locator(".map g.edge").count() };
    const tools = await page.locator(".map-tools").boundingBox();
    for (const card of await page.locator(".card").all()) {
      const box = await card.boundingBox();
      const isApart = box.x >= tools.x + tools.width || box.x + box.width <= tools.x || box.y >= tools.y + tools.height || box.y + box.height <= tools.y;
      assert(isApart, `the zoom buttons cover ${await card.getAttribute("data-node")}`);
    }
    for (const card of await page.locator(".card.is-external").all()) assert(/[1-9][\d.]*\s\/s/.test(await card.textContent()), "an external node shows no rate");
    const status = await text(page, "#map-status");
    await page.locator(".map-scroller").focus();
    await page.keyboard.press("ArrowRight");
    await page.locator(".drawer").waitFor({ timeout: waitMs });
    assert((await text(page, "#map-status")) !== status, "ArrowRight did not select anything on the map");
    await page.keyboard.press("Escape");
    await page.locator(".drawer").waitFor({ state: "detached", timeout: waitMs });
    return found;
  },
  async service(page) {
    await page.locator('.service[data-ready="true"] section[aria-label="Releases"] tbody tr').first().waitFor({ timeout: waitMs });
    await page.locator(".chart canvas").first().waitFor({ timeout: waitMs });
    const found = { releases: await page.locator('section[aria-label="Releases"] tbody tr').count(), routes: await page.locator(".routes .group-start").count() };
    // Links of alerts name the namespace, also where the service's name alone is enough.
    const { services } = await page.evaluate(() => fetch("api/v1/services").then((response) => response.json()));
    const one = new URLSearchParams({ service: services[0].service, namespace: services[0].namespace });
    await page.goto(`${base}/service?${one}`);
    await page.waitForFunction(() => document.querySelector(".service-picker select")?.selectedOptions[0]?.textContent, null, { timeout: waitMs });
    return found;
  },
  async alerts(page) {
    await page.locator('.alerts[data-ready="true"]').waitFor({ timeout: waitMs });
    await page.locator(".alert, .notice").first().waitFor({ timeout: waitMs });
    for (const words of await page.locator(".alert").allTextContents()) assert(!words.includes("`"), `backticks in an alert: ${words}`);
    return {
      firing: await page.locator('.alert[data-state="firing"]').count(),
      all: await page.locator(".alert").count(),
      sentence: (await page.locator(".alert h2").count()) > 0 ? await text(page, ".alert h2") : null,
    };
  },
  async status(page) {
    await page.locator('.status[data-ready="true"] section[aria-label="Received"] tbody tr').first().waitFor({ timeout: waitMs });
    await page.locator('section[aria-label="Dropped"]').waitFor({ timeout: waitMs });
    return { signals: await page.locator('section[aria-label="Received"] tbody tr').count() };
  },
};

/** Violations that axe-core calls serious or critical. */
async function accessibility(page) {
  await page.evaluate(axe);
  const { violations } = await page.evaluate(() => globalThis.axe.run(document, { resultTypes: ["violations"] }));
  return violations
    .filter(({ impact }) => impact === "serious" || impact === "critical")
    .map(({ id, nodes }) => `axe ${id}: ${nodes.map((node) => node.target.join(" ")).slice(0, 3).join(", ")}`);
}

let failures = 0;

async function visit(browser, name, path, shot, check) {
  const started = Date.now();
  const { page, problems } = await watchedPage(browser.context);
  let found = {};
  try {
    await page.goto(base + path, { waitUntil: "load", timeout: waitMs });
    found = await check(page);
    problems.push(...(await accessibility(page)));
    const overflow = await page.evaluate(() => document.documentElement.scrollWidth - document.documentElement.clientWidth);
    if (overflow > 0) problems.push(`the page is ${overflow} px wider than the screen`);
  } catch (error) {
    problems.push(error.message.split("\n")[0]);
  }
  const screenshot = join(out, shot);
  await page.screenshot({ path: screenshot }).catch((error) => problems.push(`no screenshot: ${error.message}`));
  const isOk = problems.length === 0;
  if (!isOk) failures += 1;
  console.log(JSON.stringify({ page: name, ok: isOk, url: page.url(), ms: Date.now() - started, screenshot, ...found, problems }));
  await page.close();
}

const wide = await openBrowser({ width: 1440, height: 900 }, { colorScheme });
try {
  for (const [name, check] of Object.entries(PAGES)) {
    const path = name === "compare" ? (scope === "" ? "/" : `/compare${scope}`) : `/${name}${name === "service" ? scope : ""}`;
    await visit(wide, name, path, `${name}.png`, check);
  }
} finally {
  await wide.close();
}

// What has to be there before a page on a narrow screen can be judged; topology is a table there.
const NARROW = { compare: needsDiff ? ".verdict" : ".flame-scroller", topology: ".edges tbody tr", service: ".chart canvas", alerts: ".alert, .notice", status: ".counters" };
const narrow = await openBrowser({ width: 380, height: 800 }, { colorScheme });
try {
  for (const [name, selector] of Object.entries(NARROW)) {
    await visit(narrow, `${name}-narrow`, `/${name}${name === "compare" || name === "service" ? scope : ""}`, `${name}-narrow.png`, async (page) => {
      await page.locator(selector).first().waitFor({ timeout: waitMs });
      return {};
    });
  }
} finally {
  await narrow.close();
}

console.log(JSON.stringify({ page: "summary", ok: failures === 0, failures }));
process.exit(failures === 0 ? 0 : 1);
