#!/usr/bin/env bash
# What a Hono application in Node reports when its own OpenTelemetry middleware is used beside Node's usual instrumentations.
#
# A good guess: one `http.server.request.duration` per request, to which the framework adds the route, as the instrumentation of
# Express does. Seen: @hono/otel 1.1.2 has a histogram of that name of its own, so each request is counted in two scopes under one
# name: by @opentelemetry/instrumentation-http without a route, which lies around the whole, and by @hono/otel with it. The two do
# not measure the same: Hono's ends when the handler has returned a response, before a streamed body is made, so a download of 300
# ms is one of 300 ms in the one and of a few in the other, and the mean of both is of nothing.
#
# Emberline counts them once, with their routes (`model/src/otlp/writers.rs`, `COUNTED_BY`), and says in `docs/clients.md` what
# such durations leave out.
#
# Needs node 20 and npm. Ends with 0 while that is so.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
echo '{}' >package.json
npm install --silent --ignore-scripts --no-audit --no-fund hono@4.13.19 @hono/node-server@2.1.9 @hono/otel@1.1.2 \
  @opentelemetry/api@1.9.1 @opentelemetry/sdk-metrics@2.12.1 @opentelemetry/instrumentation@0.223.0 \
  @opentelemetry/instrumentation-http@0.223.0
cat >seen.js <<'JS'
'use strict';
const { metrics } = require('@opentelemetry/api');
const sdk = require('@opentelemetry/sdk-metrics');
const exporter = new sdk.InMemoryMetricExporter(sdk.AggregationTemporality.CUMULATIVE);
const reader = new sdk.PeriodicExportingMetricReader({ exporter, exportIntervalMillis: 1_000_000 });
const meterProvider = new sdk.MeterProvider({ readers: [reader] });
metrics.setGlobalMeterProvider(meterProvider);
const { registerInstrumentations } = require('@opentelemetry/instrumentation');
const { HttpInstrumentation } = require('@opentelemetry/instrumentation-http');
registerInstrumentations({ instrumentations: [new HttpInstrumentation()], meterProvider });
require('http');
const { Hono } = require('hono');
const { serve } = require('@hono/node-server');
const { httpInstrumentationMiddleware } = require('@hono/otel');

const pause = (milliseconds) => new Promise((done) => setTimeout(done, milliseconds));
const app = new Hono();
app.use(httpInstrumentationMiddleware());
app.get('/quote/:item', (context) => context.text('ok'));
app.get('/download/:item', () => {
  const start = async (body) => {
    for (let piece = 0; piece < 3; piece++) {
      await pause(100);
      body.enqueue(new TextEncoder().encode('piece'));
    }
    body.close();
  };
  return new Response(new ReadableStream({ start }));
});
serve({ fetch: app.fetch, port: 0 }, async ({ port }) => {
  for (const path of ['/quote/1', '/quote/2', '/download/3']) await (await fetch(`http://localhost:${port}${path}`)).text();
  await pause(100);
  await reader.forceFlush();
  for (const name of ['@hono/otel', '@opentelemetry/instrumentation-http'])
    console.log(name, require(`./node_modules/${name}/package.json`).version);
  const seen = {};
  for (const { scopeMetrics } of exporter.getMetrics())
    for (const { scope, metrics } of scopeMetrics)
      for (const { descriptor, dataPoints } of metrics)
        if (descriptor.name === 'http.server.request.duration')
          for (const { attributes, value } of dataPoints) {
            const route = attributes['http.route'] ?? 'no route';
            console.log(`  ${scope.name}, ${route}: ${value.count} requests, ${(value.sum * 1000).toFixed(0)} ms`);
            (seen[scope.name] ??= {})[route] = { count: value.count, ms: value.sum * 1000 };
          }
  const around = seen['@opentelemetry/instrumentation-http']['no route'];
  const inside = seen['@hono/otel'];
  const isSo = around.count === 3 && around.ms >= 290
    && inside['/quote/:item'].count === 2 && inside['/download/:item'].count === 1 && inside['/download/:item'].ms < 100;
  if (!isSo) console.log('Hono measures otherwise now');
  process.exit(isSo ? 0 : 1);
});
JS
node --version
node seen.js
