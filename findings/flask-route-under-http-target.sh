#!/usr/bin/env bash
# Where the route of a Flask application is in OpenTelemetry's metrics with default settings.
#
# A good guess: under `http.route`, as the conventions for HTTP metrics say. Seen: there is no `http.route`. The duration is
# `http.server.duration`, and its `http.target`, which is the path of the request in spans, holds the route of the rule
# ("/quote/<int:item>"). Durations are whole milliseconds: most requests of a fast handler are counted in the bucket up to and
# including 0.
#
# Ends with 0 while that is so.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet flask==3.1.3 opentelemetry-sdk==1.45.1 opentelemetry-instrumentation-flask==0.66b1
cat > "$folder/seen.py" <<'PY'
import sys
from importlib.metadata import version

from flask import Flask
from opentelemetry import metrics
from opentelemetry.instrumentation.flask import FlaskInstrumentor
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader

reader = InMemoryMetricReader()
metrics.set_meter_provider(MeterProvider(metric_readers=[reader]))
app = Flask("shop")
FlaskInstrumentor().instrument_app(app)


@app.route("/quote/<int:item>")
def quote(item):
    return "ok"


for item in range(200):
    app.test_client().get(f"/quote/{item}")
print("opentelemetry-instrumentation-flask", version("opentelemetry-instrumentation-flask"))
as_described = False
for resource in reader.get_metrics_data().resource_metrics:
    for scope in resource.scope_metrics:
        for metric in scope.metrics:
            if metric.name != "http.server.duration":
                continue
            for point in metric.data.data_points:
                names = sorted(key for key in point.attributes if key in ("http.route", "http.target"))
                print(metric.name, metric.unit, {key: point.attributes[key] for key in names})
                print("bounds", list(point.explicit_bounds)[:4], "counts", list(point.bucket_counts)[:4], "of", point.count)
                as_described = (
                    point.attributes.get("http.target") == "/quote/<int:item>"
                    and "http.route" not in point.attributes
                    and point.explicit_bounds[0] == 0
                    and point.bucket_counts[0] > point.count / 2
                    and float(point.sum).is_integer()
                )
sys.exit(0 if as_described else 1)
PY
"$folder/venv/bin/python" "$folder/seen.py"
