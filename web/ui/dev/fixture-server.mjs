// FIXTURE server for development and page tests: serves dist and the invented answers of fixture-data.mjs under the
// product's Content-Security-Policy. `node dev/fixture-server.mjs [--port 4041] [--scenario regression]`
import { createReadStream, existsSync, statSync } from "node:fs";
import { createServer } from "node:http";
import { dirname, extname, join, normalize } from "node:path";
import { fileURLToPath } from "node:url";
import { alertsOf, diffOf, profileOf, SCENARIOS, servicePageOf, servicesOf, statusOf, topologyOf } from "./fixture-data.mjs";

const dist = join(dirname(fileURLToPath(import.meta.url)), "..", "dist");
const CSP = "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; connect-src 'self'";
const TYPES = { ".html": "text/html; charset=utf-8", ".js": "text/javascript", ".css": "text/css", ".svg": "image/svg+xml" };

export function startFixture({ port = 0, scenario = "regression" } = {}) {
  const started = Date.now();
  const answers = {
    services: () => servicesOf(scenario, Date.now()),
    service: () => servicePageOf(scenario, Date.now()),
    diff: (query) => diffOf({ scenario, route: query.get("route"), per: (query.get("per") ?? "best").replace("best", "request"), baseline: query.get("baseline") ?? "v1", candidate: query.get("candidate") ?? "v2", now: Date.now() }),
    profile: (query) => profileOf({ scenario, route: query.get("route") }),
    topology: () => topologyOf(scenario, Date.now()),
    alerts: (query) => ({ alerts: scenario === "regression" ? alertsOf(Date.now()).filter((alert) => query.get("state") !== "firing" || alert.state === "firing") : [] }),
    status: () => statusOf(Date.now(), started),
  };
  const server = createServer((request, response) => {
    const url = new URL(request.url, "http://fixture");
    const send = (status, body) => {
      response.writeHead(status, { "content-type": "application/json" });
      response.end(JSON.stringify(body));
    };
    if (url.pathname.startsWith("/api/")) {
      const answer = answers[url.pathname.slice("/api/v1/".length)];
      if (scenario === "broken") return send(503, { error: { code: "busy", message: "The store is replaying its journal; it answers again when that is done.", retry: true } });
      if (answer === undefined) return send(404, { error: { code: "unknown_path", message: "There is no such question.", retry: false } });
      if (url.searchParams.get("service") && !servicesOf(scenario, 0).services.some((known) => known.service === url.searchParams.get("service"))) {
        return send(404, { error: { code: "unknown_service", message: `No service named ${url.searchParams.get("service")} was seen in this range.`, retry: false } });
      }
      const delay = scenario === "slow" && url.pathname.endsWith("/diff") ? 7000 : 0;
      return setTimeout(() => send(200, answer(url.searchParams)), delay);
    }
    const path = join(dist, normalize(url.pathname));
    const file = path.startsWith(dist) && existsSync(path) && statSync(path).isFile() ? path : join(dist, "index.html");
    response.writeHead(200, { "content-type": TYPES[extname(file)] ?? "application/octet-stream", "content-security-policy": CSP });
    createReadStream(file).pipe(response);
    return undefined;
  });
  return new Promise((resolve) => {
    server.listen(port, "127.0.0.1", () => resolve({ url: `http://127.0.0.1:${server.address().port}`, close: () => server.close() }));
  });
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  const option = (name, fallback) => {
    const at = process.argv.indexOf(`--${name}`);
    return at < 0 ? fallback : process.argv[at + 1];
  };
  const scenario = option("scenario", "regression");
  if (!SCENARIOS.includes(scenario)) throw new Error(`unknown scenario ${scenario}; known: ${SCENARIOS.join(", ")}`);
  const { url } = await startFixture({ port: Number(option("port", "4041")), scenario });
  console.log(`fixture (${scenario}) on ${url}`);
}
