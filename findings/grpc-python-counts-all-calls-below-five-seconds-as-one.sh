#!/usr/bin/env bash
# How long calls took, as a gRPC service in Python reports it over OpenTelemetry.
#
# A good guess: with OpenTelemetry's instrumentation under the conventions' `rpc.server.*`, as the instrumentations of HTTP have
# theirs; or with gRPC's own plugin (grpcio-observability, gRFC A66) in its `grpc.server.call.duration` with the bounds that the
# gRFC lists, from 10 microseconds up. Seen: opentelemetry-instrumentation-grpc 0.66b1 makes spans and no metric at all. The
# plugin, 1.85.0, has `grpc.server.call.duration` in seconds over the SDK's default bounds, 0, 5, 10, 25, ..., which are made for
# milliseconds: a call of 1 ms and one of 1 s are counted in the same bucket, above 0 up to and including 5 s. Quantiles read off
# the buckets are noise; only sum, count, least and most say something. Its `grpc.method` has no slash in front, and is `other`
# for handlers that are not registered as generated code does it; `grpc.status` is the code's name.
#
# Emberline takes the plugin's metrics and says `bounds_too_wide` where most values are in such a bucket
# (`model/src/otlp/buckets.rs`).
#
# Needs python3 with venv. Ends with 0 while that is so.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check grpcio==1.85.0 grpcio-observability==1.85.0 \
  opentelemetry-sdk==1.45.1 opentelemetry-instrumentation-grpc==0.66b1
cat >"$folder/shop.py" <<'PY'
import json
import sys
import time
from concurrent import futures

import grpc
from opentelemetry import metrics, trace
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

how, registered = sys.argv[1], sys.argv[2] == "registered"
reader, spans = InMemoryMetricReader(), InMemorySpanExporter()
meters = MeterProvider(metric_readers=[reader])
metrics.set_meter_provider(meters)
traces = TracerProvider()
traces.add_span_processor(SimpleSpanProcessor(spans))
trace.set_tracer_provider(traces)
if how == "instrumentation":
    from opentelemetry.instrumentation.grpc import GrpcInstrumentorClient, GrpcInstrumentorServer

    GrpcInstrumentorServer().instrument()
    GrpcInstrumentorClient().instrument()
else:
    import grpc_observability

    plugin = grpc_observability.OpenTelemetryPlugin(meter_provider=meters)
    plugin.register_global()


def total(request, _):
    time.sleep(float(request))
    return b""


handlers = {"Total": grpc.unary_unary_rpc_method_handler(total)}
server = grpc.server(futures.ThreadPoolExecutor(2))
server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("shop.Cart", handlers),))
if registered:
    server.add_registered_method_handlers("shop.Cart", handlers)
port = server.add_insecure_port("127.0.0.1:0")
server.start()
with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
    call = channel.unary_unary("/shop.Cart/Total")
    for seconds in (b"0.001", b"0.001", b"0.001", b"1"):
        call(seconds)
server.stop(1).wait()
seen = {"spans": 0, "metrics": 0, "durations": []}
# The plugin hands over what it has counted from another thread.
for _ in range(20):
    time.sleep(0.5)
    data = reader.get_metrics_data()
    found = [m for r in (data.resource_metrics if data else []) for s in r.scope_metrics for m in s.metrics]
    seen["spans"] = len(spans.get_finished_spans())
    seen["metrics"] = len(found)
    seen["durations"] = [
        {
            "unit": metric.unit,
            "attributes": dict(point.attributes),
            "bounds": list(point.explicit_bounds)[:4],
            "counts": list(point.bucket_counts)[:4],
            "count": point.count,
            "sum": round(point.sum, 2),
        }
        for metric in found
        if metric.name == "grpc.server.call.duration"
        for point in metric.data.data_points
    ]
    if sum(point["count"] for point in seen["durations"]) == 4 or how == "instrumentation" and seen["spans"] == 8:
        break
print(json.dumps(seen))
if how == "plugin":
    plugin.deregister_global()
PY
cat >"$folder/seen.py" <<'PY'
import json
import subprocess
import sys
from importlib.metadata import version


def seen(*arguments):
    return json.loads(subprocess.run([sys.executable, sys.argv[1], *arguments], check=True, stdout=subprocess.PIPE).stdout)


spans = seen("instrumentation", "registered")
print("opentelemetry-instrumentation-grpc", version("opentelemetry-instrumentation-grpc"), spans)
generic, registered = (seen("plugin", how)["durations"] for how in ("generic", "registered"))
print("grpcio-observability", version("grpcio-observability"), "generic:", generic)
print("grpcio-observability", version("grpcio-observability"), "registered:", registered)
as_described = (
    spans["spans"] == 8
    and spans["metrics"] == 0
    and [point["attributes"] for point in generic] == [{"grpc.method": "other", "grpc.status": "OK"}]
    and [point["attributes"] for point in registered] == [{"grpc.method": "shop.Cart/Total", "grpc.status": "OK"}]
    and all(
        point["unit"] == "s" and point["bounds"] == [0, 5, 10, 25] and point["counts"] == [0, 4, 0, 0] and 1 <= point["sum"] < 5
        for point in generic + registered
    )
)
sys.exit(0 if as_described else 1)
PY
"$folder/venv/bin/python" "$folder/seen.py" "$folder/shop.py"
