#!/usr/bin/env bash
# Whether the requests of OpenTelemetry's own exporter are among the client metrics of a Node process.
#
# A good guess: no, because the exporter suppresses instrumentation while it exports (there are no spans of it). Seen: with
# @opentelemetry/instrumentation-http the POST of each export is counted in `http.client.request.duration`, with the address of
# the collector as `server.address`: every process seems to call the collector, and its client durations hold the exports.
#
# Ends with 0 while that is so.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
echo '{}' > package.json
npm install --silent --ignore-scripts --no-audit --no-fund @opentelemetry/api@1.9.0 @opentelemetry/sdk-node@0.223.0 \
  @opentelemetry/instrumentation-http@0.223.0
cat > seen.js <<'JS'
'use strict';
Object.assign(process.env, { OTEL_METRICS_EXPORTER: 'otlp', OTEL_METRIC_EXPORT_INTERVAL: '300', OTEL_EXPORTER_OTLP_PROTOCOL: 'http/json' });
const bodies = [];
// The collector is another process' worth of code: it is loaded before the instrumentation, and only keeps what comes.
const collector = require('http').createServer((request, response) => {
  const parts = [];
  request.on('data', (part) => parts.push(part)).on('end', () => {
    if (request.url === '/v1/metrics') bodies.push(JSON.parse(Buffer.concat(parts)));
    response.setHeader('content-type', 'application/json');
    response.end('{}');
  });
});
collector.listen(0, '127.0.0.1', async () => {
  const port = collector.address().port;
  process.env.OTEL_EXPORTER_OTLP_ENDPOINT = `http://127.0.0.1:${port}`;
  const { NodeSDK } = require('@opentelemetry/sdk-node');
  const { HttpInstrumentation } = require('@opentelemetry/instrumentation-http');
  const sdk = new NodeSDK({ instrumentations: [new HttpInstrumentation()] });
  sdk.start();
  const metrics = require('@opentelemetry/api').metrics;
  metrics.getMeter('shop').createCounter('orders').add(1);
  require('http');
  await new Promise((done) => setTimeout(done, 2000));
  console.log('@opentelemetry/instrumentation-http', require('@opentelemetry/instrumentation-http/package.json').version);
  let counted = 0;
  for (const body of bodies)
    for (const resource of body.resourceMetrics)
      for (const scope of resource.scopeMetrics)
        for (const metric of scope.metrics)
          if (metric.name === 'http.client.request.duration')
            for (const point of metric.histogram.dataPoints) {
              const of = (key) => Object.values(point.attributes.find((a) => a.key === key)?.value ?? {})[0];
              if (Number(of('server.port')) === port) counted = Number(point.count);
            }
  console.log(`${bodies.length} exports; the application made no request; client requests counted to the collector: ${counted}`);
  process.exit(counted > 0 ? 0 : 1);
});
JS
node seen.js
