"""A Python service that knows what it costs: `GET /quote/N` burns CPU in `parse_request` and `price_basket`, `GET /clock`
answers what its own CPU clock says of the latter. Arguments: port, milliseconds of `price_basket`, service, version,
address of pages' OTLP/HTTP port, `pyroscope` or `otel`.

`pyroscope` starts the agent of the same name. `otel` reports request durations with OpenTelemetry's SDK as it comes; the
profiler is then py-spy, from outside.
"""

import http.server
import json
import sys
import time

PORT, COST_MS, SERVICE, VERSION, ADDRESS, WAY = sys.argv[1:7]
CLOCK = {"price_basket_ns": 0, "requests": 0}


def parse_request():
    end = time.thread_time_ns() + 2_000_000
    while time.thread_time_ns() < end:
        for number in range(500):
            number * number


def price_basket():
    began = time.thread_time_ns()
    end = began + int(COST_MS) * 1_000_000
    while time.thread_time_ns() < end:
        for number in range(500):
            number * number
    CLOCK["price_basket_ns"] += time.thread_time_ns() - began


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        if self.path == "/clock":
            return self.answer(json.dumps(CLOCK))
        began = time.monotonic()
        parse_request()
        price_basket()
        CLOCK["requests"] += 1
        self.answer("{}")
        duration.record(
            time.monotonic() - began,
            {"http.request.method": "GET", "http.route": "/quote/<int:item>", "http.response.status_code": 200},
        )

    def answer(self, text):
        self.send_response(200)
        self.send_header("content-length", str(len(text)))
        self.end_headers()
        self.wfile.write(text.encode())

    def log_message(self, *_):
        pass


class NoDuration:
    def record(self, *_):
        pass


duration = NoDuration()
if WAY == "pyroscope":
    import pyroscope

    pyroscope.configure(application_name=SERVICE, server_address=ADDRESS, sample_rate=100, tags={"version": VERSION})
else:
    from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
    from opentelemetry.sdk.metrics import MeterProvider
    from opentelemetry.sdk.metrics.export import PeriodicExportingMetricReader
    from opentelemetry.sdk.resources import Resource

    resource = Resource.create({"service.name": SERVICE, "service.version": VERSION})
    reader = PeriodicExportingMetricReader(OTLPMetricExporter(endpoint=f"{ADDRESS}/v1/metrics"))
    meter = MeterProvider(resource=resource, metric_readers=[reader]).get_meter("shop")
    duration = meter.create_histogram("http.server.request.duration", unit="s")
http.server.ThreadingHTTPServer(("127.0.0.1", int(PORT)), Handler).serve_forever()
