// The payment service: a Node.js program that knows nothing of the mesh; its proxy stands in front of it.
// usage: node server.mjs PORT [--exit-on-stdin-close]
import { createHash } from "node:crypto";
import { createServer } from "node:http";

const port = Number(process.argv[2]);
const server = createServer((request, response) => {
  const match = /^\/pay\/([^/?]+)$/.exec(request.url ?? "");
  if (!match) {
    response.writeHead(404).end("not found\n");
    return;
  }
  let receipt = match[1];
  for (let round = 0; round < 40; round++) receipt = createHash("sha256").update(receipt).digest("hex");
  response.writeHead(200, { "content-type": "application/json" }).end(JSON.stringify({ receipt }));
});
server.keepAliveTimeout = 65_000;
server.on("error", (error) => {
  console.error(`payment: cannot listen on port ${port}: ${error.message}`);
  process.exit(1);
});
server.listen(port, "127.0.0.1");

const stop = () => {
  server.close(() => process.exit(0));
  server.closeIdleConnections();
  setTimeout(() => process.exit(0), 2000).unref();
};
process.on("SIGTERM", stop);
process.on("SIGINT", stop);
if (process.argv.includes("--exit-on-stdin-close")) process.stdin.on("end", stop).resume();
