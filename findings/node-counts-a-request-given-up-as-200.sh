#!/usr/bin/env bash
# How OpenTelemetry's Node instrumentation counts a request whose caller gave up before there was an answer.
#
# A good guess: as an error (`error.type`), or without a status, as nothing was sent. Seen: @opentelemetry/instrumentation-http
# 0.223.0 counts it in `http.server.request.duration` with `http.response.status_code` 200 and no `error.type`, although the
# handler was going to say 503: 200 is what Node's response object holds until somebody sets it. Its duration is the caller's
# patience. Where an application is too slow and its callers' time-outs strike, its own metrics show nothing but successes that
# get no slower than the time-out; only the caller's `http.client.request.duration` has the error. A proxy in between says 499.
#
# `docs/clients.md` has it in a table of what SDKs report otherwise than a proxy.
#
# Needs node 20. Ends with 0 while that is so.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
echo '{}' >package.json
npm install --silent --ignore-scripts --no-audit --no-fund @opentelemetry/api@1.9.0 @opentelemetry/sdk-metrics@2.12.1 \
  @opentelemetry/instrumentation@0.223.0 @opentelemetry/instrumentation-http@0.223.0
cat >seen.js <<'JS'
'use strict';
const { MeterProvider, MetricReader } = require('@opentelemetry/sdk-metrics');
const { registerInstrumentations } = require('@opentelemetry/instrumentation');
const { HttpInstrumentation } = require('@opentelemetry/instrumentation-http');

class Reader extends MetricReader {
  onForceFlush() {}
  onShutdown() {}
}
const reader = new Reader();
const meterProvider = new MeterProvider({ readers: [reader] });
registerInstrumentations({ instrumentations: [new HttpInstrumentation()], meterProvider });
const http = require('http');

let asked = 0;
let sent = 0;
const server = http.createServer((request, response) => {
  asked += 1;
  setTimeout(() => {
    if (response.destroyed) return;
    sent += 1;
    response.statusCode = 503;
    response.end();
  }, 5000);
});
const giveUp = (port) =>
  new Promise((done) => {
    const request = http.get({ host: '127.0.0.1', port, path: '/quote' });
    request.on('error', () => done());
    setTimeout(() => request.destroy(), 500);
  });
server.listen(0, '127.0.0.1', async () => {
  for (let number = 0; number < 3; number += 1) await giveUp(server.address().port);
  await new Promise((done) => setTimeout(done, 500));
  console.log('@opentelemetry/instrumentation-http', require('@opentelemetry/instrumentation-http/package.json').version);
  console.log(`requests that came: ${asked}, answers that were sent: ${sent}`);
  const seen = {};
  for (const scope of (await reader.collect()).resourceMetrics.scopeMetrics)
    for (const metric of scope.metrics)
      for (const { attributes, value } of metric.dataPoints) {
        const status = attributes['http.response.status_code'] ?? 'none';
        seen[metric.descriptor.name] = { count: value.count, status, error: attributes['error.type'] ?? 'none' };
        console.log(metric.descriptor.name, seen[metric.descriptor.name], `mean ${(value.sum / value.count).toFixed(2)} s`);
      }
  const own = seen['http.server.request.duration'];
  const callers = seen['http.client.request.duration'];
  const asDescribed =
    sent === 0 && own.count === 3 && own.status === 200 && own.error === 'none' && callers.count === 3 && callers.error !== 'none';
  process.exit(asDescribed ? 0 : 1);
});
JS
node seen.js
