// Request durations measured by OpenTelemetry's JavaScript SDK, unmodified. Arguments: http (JSON), proto or grpc, address.
'use strict';
const { MeterProvider, PeriodicExportingMetricReader, AggregationType } = require('@opentelemetry/sdk-metrics');
const { resourceFromAttributes } = require('@opentelemetry/resources');

const [protocol, address] = process.argv.slice(2);
const { OTLPMetricExporter } = require(`@opentelemetry/exporter-metrics-otlp-${protocol}`);
const exporter = new OTLPMetricExporter({
  url: protocol === 'grpc' ? address : `${address}/v1/metrics`,
  // 0 is delta in the exporters' own enumeration.
  temporalityPreference: 0,
  aggregationPreference: () => ({ type: AggregationType.EXPONENTIAL_HISTOGRAM }),
});
const provider = new MeterProvider({
  resource: resourceFromAttributes({ 'service.name': `oteljs-${protocol}`, 'service.version': 'v9' }),
  readers: [new PeriodicExportingMetricReader({ exporter, exportIntervalMillis: 60000 })],
});
const durations = provider.getMeter('shop').createHistogram('http.server.request.duration', { unit: 's' });
for (let n = 0; n < 500; n++) {
  durations.record(0.001 * (1 + (n % 50)), {
    'http.route': n % 5 ? '/cart/{id}' : '/checkout',
    'http.request.method': 'GET',
    'http.response.status_code': 200,
  });
}
provider.shutdown().then(() => console.log(JSON.stringify({ requests: 500 })));
