"""A Flask application under OpenTelemetry's own instrumentation with default settings: explicit bounds, cumulative, milliseconds,
old names. Argument: address of OTLP/HTTP. Prints how many requests it served, in all and by route."""

import json
import os
import sys
import time

os.environ["OTEL_EXPORTER_OTLP_ENDPOINT"] = sys.argv[1]
os.environ["OTEL_SERVICE_NAME"] = "otelpy-defaults"
os.environ["OTEL_RESOURCE_ATTRIBUTES"] = "service.version=v9"

from flask import Flask
from opentelemetry import metrics
from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
from opentelemetry.instrumentation.flask import FlaskInstrumentor
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import PeriodicExportingMetricReader

provider = MeterProvider(metric_readers=[PeriodicExportingMetricReader(OTLPMetricExporter())])
metrics.set_meter_provider(provider)
app = Flask("shop")
FlaskInstrumentor().instrument_app(app)


@app.route("/quote/<int:item>")
def quote(item):
    time.sleep(0.001 * (1 + item % 7))
    return "ok"


@app.route("/checkout")
def checkout():
    return "ok"


client = app.test_client()
for item in range(60):
    client.get(f"/quote/{item}")
provider.force_flush()
# Exports of one second would be one instant to a store of seconds.
time.sleep(1.1)
for item in range(40):
    client.get(f"/quote/{item}")
for _ in range(25):
    client.get("/checkout")
provider.shutdown()
print(json.dumps({"requests": 125, "routes": {"/quote/{item}": 100, "/checkout": 25}}))
