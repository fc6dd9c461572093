// Takes the README's picture: runs the sample mesh, waits for its verdict, and opens the page that the verdict links to.
//   node e2e/picture.mjs target/release/emberline docs/compare.png
import { spawn } from "node:child_process";
import { createInterface } from "node:readline";
import { openBrowser, watchedPage } from "./browser.mjs";

const [program, out] = process.argv.slice(2);
if (out === undefined) {
  console.error("usage: node e2e/picture.mjs <emberline> <picture.png>");
  process.exit(2);
}
/** More windows after the verdict, so that intervals are narrow. */
const SETTLE_MS = 60_000;

const demo = spawn(program, ["demo", "--port", "0", "--output", "json"], { stdio: ["ignore", "pipe", "inherit"] });
try {
  let verdict;
  for await (const line of createInterface({ input: demo.stdout })) {
    const event = JSON.parse(line);
    if (event.event === "verdict" && event.function !== null) {
      verdict = event;
      break;
    }
  }
  if (verdict === undefined) throw new Error("the demo ended without a verdict");
  demo.stdout.resume();
  await new Promise((resolve) => setTimeout(resolve, SETTLE_MS));
  const browser = await openBrowser({ width: 1440, height: 900 }, { colorScheme: "light" });
  try {
    const { page, problems } = await watchedPage(browser.context);
    // All code and the last hour, instead of the evidence alone.
    const address = new URL(verdict.url);
    for (const name of ["from", "to"]) address.searchParams.delete(name);
    address.searchParams.set("code", "all");
    await page.goto(address.href, { waitUntil: "load" });
    await page.locator(".flame-scroller").first().waitFor();
    await page.locator("table tbody tr").first().waitFor();
    await page.screenshot({ path: out });
    if (problems.length > 0) throw new Error(problems.join("\n"));
  } finally {
    await browser.close();
  }
  console.log(out);
} finally {
  demo.kill("SIGINT");
  await new Promise((resolve) => (demo.exitCode === null ? demo.once("exit", resolve) : resolve()));
}
