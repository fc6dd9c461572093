// Prints the size of what a first visit loads and fails when it outgrows the budget. Sizes are gzip level 9.
import { existsSync, readFileSync, readdirSync } from "node:fs";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { gzipSync } from "node:zlib";

const dist = join(dirname(fileURLToPath(import.meta.url)), "..", "dist");
const limits = { initialJs: 60, lazyJs: 25, totalJs: 150, css: 12 };

if (!existsSync(join(dist, "index.html"))) {
  console.error("budget: web/ui/dist is missing: run `npm run build` first");
  process.exit(1);
}

const html = readFileSync(join(dist, "index.html"), "utf8");
const assets = readdirSync(join(dist, "assets"));
const kilobytes = (name) => gzipSync(readFileSync(join(dist, "assets", name)), { level: 9 }).length / 1024;
const scripts = assets.filter((name) => name.endsWith(".js"));
const styles = assets.filter((name) => name.endsWith(".css"));
const sum = (names) => names.reduce((total, name) => total + kilobytes(name), 0);

const initial = scripts.filter((name) => html.includes(name));
const lazy = scripts.filter((name) => !html.includes(name));
const rows = [
  ["initial JS", sum(initial), limits.initialJs],
  ...lazy.map((name) => [`lazy ${name}`, kilobytes(name), limits.lazyJs]),
  ["total JS", sum(scripts), limits.totalJs],
  ["CSS", sum(styles), limits.css],
];

let failed = false;
for (const [what, size, limit] of rows) {
  const over = size > limit;
  failed ||= over;
  console.log(`budget: ${what.padEnd(34)} ${size.toFixed(1).padStart(6)} KB gz of ${limit}${over ? "  OVER" : ""}`);
}
if (/<script(?![^>]*\bsrc=)[^>]*>/.test(html)) {
  console.error("budget: index.html holds an inline script, which the Content-Security-Policy forbids");
  failed = true;
}
if (/(?:src|href)="https?:/.test(html)) {
  console.error("budget: index.html names another origin");
  failed = true;
}
process.exit(failed ? 1 : 0);
