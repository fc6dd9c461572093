"""Request durations measured by OpenTelemetry's Python SDK, unmodified. Arguments: grpc or http, address."""

import json
import sys

from opentelemetry.sdk.metrics import Histogram, MeterProvider
from opentelemetry.sdk.metrics.export import AggregationTemporality, PeriodicExportingMetricReader
from opentelemetry.sdk.metrics.view import ExponentialBucketHistogramAggregation
from opentelemetry.sdk.resources import Resource

protocol, address = sys.argv[1], sys.argv[2]
preferences = {
    "preferred_temporality": {Histogram: AggregationTemporality.DELTA},
    "preferred_aggregation": {Histogram: ExponentialBucketHistogramAggregation()},
}
if protocol == "grpc":
    from opentelemetry.exporter.otlp.proto.grpc.metric_exporter import OTLPMetricExporter

    exporter = OTLPMetricExporter(endpoint=address, insecure=True, **preferences)
else:
    from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter

    exporter = OTLPMetricExporter(endpoint=f"{address}/v1/metrics", **preferences)
resource = Resource.create({"service.name": f"otelpy-{protocol}", "service.version": "v9"})
reader = PeriodicExportingMetricReader(exporter, export_interval_millis=60_000)
provider = MeterProvider(resource=resource, metric_readers=[reader])
durations = provider.get_meter("shop").create_histogram("http.server.request.duration", unit="s")
for n in range(500):
    route = "/cart/{id}" if n % 5 else "/checkout"
    durations.record(
        0.001 * (1 + n % 50),
        {"http.route": route, "http.request.method": "GET", "http.response.status_code": 200},
    )
provider.shutdown()
print(json.dumps({"requests": 500}))
