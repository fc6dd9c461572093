#!/usr/bin/env bash
# What OpenTelemetry's Python exporter over OTLP/HTTP does when the server is full and answers 429 with `Retry-After`.
#
# A good guess: it sends the batch again, since the specification of OTLP/HTTP lists 429 among the codes that must be
# retried, and the Go and JavaScript exporters do so. Seen: up to 1.43.0 the batch is dropped with an error in the log; only
# 408 and 5xx are retried (`_is_retryable`). With 503 and the same header every exporter that was tried sends it again. So
# Emberline refuses for lack of capacity with 503.
#
# Ends with 0 while that is so.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet opentelemetry-sdk==1.43.0 opentelemetry-exporter-otlp-proto-http==1.43.0
cat > "$folder/seen.py" <<'PY'
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.metadata import version

from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import MetricExportResult, MetricReader


class Full(BaseHTTPRequestHandler):
    """Refuses the first request, takes those that follow."""

    def do_POST(self):
        self.rfile.read(int(self.headers["Content-Length"]))
        seen = self.server.seen
        seen.append(self.server.refusal if not seen else 200)
        self.send_response(seen[-1])
        self.send_header("Retry-After", "1")
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_):
        pass


def export(refusal):
    server = ThreadingHTTPServer(("127.0.0.1", 0), Full)
    server.seen, server.refusal = [], refusal
    threading.Thread(target=server.serve_forever, daemon=True).start()
    exporter = OTLPMetricExporter(endpoint=f"http://127.0.0.1:{server.server_address[1]}/v1/metrics")
    outcomes = []

    class Reader(MetricReader):
        def _receive_metrics(self, metrics_data, timeout_millis=10_000, **_):
            outcomes.append(exporter.export(metrics_data))

        def shutdown(self, *_, **__):
            pass

    reader = Reader()
    provider = MeterProvider(metric_readers=[reader])
    provider.get_meter("shop").create_counter("orders").add(1)
    reader.collect()
    server.shutdown()
    print(f"refused with {refusal}: {outcomes[0].name}, requests answered {server.seen}")
    return outcomes[0] is MetricExportResult.SUCCESS, server.seen


print("opentelemetry-exporter-otlp-proto-http", version("opentelemetry-exporter-otlp-proto-http"))
dropped = export(429) == (False, [429])
kept = export(503) == (True, [503, 200])
raise SystemExit(0 if dropped and kept else 1)
PY
"$folder/venv/bin/python" "$folder/seen.py"
