// A Node service that knows what it costs: `GET /quote/N` burns CPU in `parseRequest` and `priceBasket`, `GET /clock`
// answers what its own CPU clock says of the latter. Arguments: port, milliseconds of `priceBasket`, service, version,
// address of the OTLP/HTTP port, `proxy` or `otel` (who reports the requests). The profiler is `@pyroscope/nodejs`.
'use strict';
const http = require('http');
const Pyroscope = require('@pyroscope/nodejs');

const [port, cost, service, version, address, way] = process.argv.slice(2);
const clock = { price_basket_ns: 0, requests: 0 };
const cpuUs = () => {
  const { user, system } = process.cpuUsage();
  return user + system;
};

function parseRequest() {
  const end = cpuUs() + 2000;
  let total = 0;
  while (cpuUs() < end) for (let i = 0; i < 20000; i++) total += Math.sqrt(i);
  return total;
}

function priceBasket() {
  const began = cpuUs();
  const end = began + Number(cost) * 1000;
  let total = 0;
  while (cpuUs() < end) for (let i = 0; i < 20000; i++) total += Math.sqrt(i);
  clock.price_basket_ns += (cpuUs() - began) * 1000;
  return total;
}

let record = () => {};
if (way === 'otel') {
  const { MeterProvider, PeriodicExportingMetricReader } = require('@opentelemetry/sdk-metrics');
  const { OTLPMetricExporter } = require('@opentelemetry/exporter-metrics-otlp-proto');
  const { resourceFromAttributes } = require('@opentelemetry/resources');
  const provider = new MeterProvider({
    resource: resourceFromAttributes({ 'service.name': service, 'service.version': version }),
    readers: [new PeriodicExportingMetricReader({ exporter: new OTLPMetricExporter({ url: `${address}/v1/metrics` }) })],
  });
  const histogram = provider.getMeter('shop').createHistogram('http.server.request.duration', { unit: 's' });
  record = (seconds) =>
    histogram.record(seconds, {
      'http.request.method': 'GET',
      'http.route': '/quote/:item',
      'http.response.status_code': 200,
    });
}
Pyroscope.init({ serverAddress: address, appName: service, tags: { version }, wall: { collectCpuTime: true } });
Pyroscope.start();
http
  .createServer((request, response) => {
    if (request.url === '/clock') return response.end(JSON.stringify(clock));
    const began = performance.now();
    parseRequest();
    priceBasket();
    clock.requests += 1;
    response.end('{}');
    record((performance.now() - began) / 1000);
  })
  .listen(Number(port), '127.0.0.1');
