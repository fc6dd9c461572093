// A server under OpenTelemetry's SDK for Node with default settings, but for the interval: explicit bounds, cumulative,
// new names. Argument: address of OTLP/HTTP. Prints how many requests it served, in all and by route.
'use strict';
const address = process.argv[2];
Object.assign(process.env, {
  OTEL_EXPORTER_OTLP_ENDPOINT: address,
  OTEL_METRICS_EXPORTER: 'otlp',
  OTEL_METRIC_EXPORT_INTERVAL: '1000',
  OTEL_SERVICE_NAME: 'oteljs-defaults',
  OTEL_RESOURCE_ATTRIBUTES: 'service.version=v9',
});
const { NodeSDK } = require('@opentelemetry/sdk-node');
const { HttpInstrumentation } = require('@opentelemetry/instrumentation-http');
const { ExpressInstrumentation } = require('@opentelemetry/instrumentation-express');
const sdk = new NodeSDK({ instrumentations: [new HttpInstrumentation(), new ExpressInstrumentation()] });
sdk.start();
const http = require('http');
const app = require('express')();
app.get('/quote/:id', (request, response) => setTimeout(() => response.send('ok'), 2));
app.get('/checkout', (request, response) => response.send('ok'));

const server = app.listen(0, '127.0.0.1', async () => {
  const { port } = server.address();
  const get = (path) =>
    new Promise((done, failed) => {
      http.get({ host: '127.0.0.1', port, path }, (answer) => answer.resume().on('end', done)).on('error', failed);
    });
  for (let n = 0; n < 60; n++) await get(`/quote/${n}`);
  await new Promise((done) => setTimeout(done, 2200));
  for (let n = 0; n < 40; n++) await get(`/quote/${n}`);
  for (let n = 0; n < 25; n++) await get('/checkout');
  await sdk.shutdown();
  console.log(JSON.stringify({ requests: 125, routes: { '/quote/{id}': 100, '/checkout': 25 } }));
  process.exit(0);
});
