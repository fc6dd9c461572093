#!/usr/bin/env bash
# Which calls failed, as Connect's own instrumentation for Python (connectrpc-otel 0.3.0) reports it.
#
# A good guess: as gRPC's, whose codes Connect has: `error.type` on the server's side for INTERNAL, UNAVAILABLE and the like, and
# not for what is the caller's fault (NOT_FOUND, INVALID_ARGUMENT) or leave (CANCELLED), as the conventions for gRPC say. Seen:
# `error.type` is `ConnectError` for all of them, so a service asked for things that it does not have fails as often as it is
# asked. What tells them apart is `rpc.response.status_code`, in Connect's spelling: lower case and, with one l, `canceled`, which
# matches no name of gRPC's code 1.
#
# Emberline judges these calls by their code (`model/src/otlp/durations.rs`, `model/src/protocol.rs`).
#
# Needs python3 with venv. Ends with 0 while that is so.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check connectrpc==0.13.0 connectrpc-otel==0.3.0 \
  protobuf-py==0.7.0 pyqwest==0.12.0 opentelemetry-sdk==1.45.1
cat >"$folder/seen.py" <<'PY'
import sys
import threading
from importlib.metadata import version
from wsgiref.simple_server import WSGIRequestHandler, make_server

from connectrpc._gen.google.rpc.status_pb import Status
from connectrpc.client import ConnectClientSync
from connectrpc.code import Code
from connectrpc.errors import ConnectError
from connectrpc.method import IdempotencyLevel, MethodInfo, StreamType
from connectrpc.server import ConnectWSGIApplication, EndpointSync
from connectrpc_otel import OpenTelemetryInterceptor
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader

reader = InMemoryMetricReader()
method = MethodInfo(
    name="Total",
    service_name="shop.Cart",
    input=Status,
    output=Status,
    idempotency_level=IdempotencyLevel.UNKNOWN,
    stream_type=StreamType.UNARY,
)


def total(request, context):
    if request.message:
        raise ConnectError(Code(request.message), "as asked for")
    return Status()


class Cart(ConnectWSGIApplication):
    path = "/shop.Cart"


class Quiet(WSGIRequestHandler):
    def log_message(self, *_):
        pass


app = Cart(
    endpoints={"/shop.Cart/Total": EndpointSync.unary(method=method, function=total)},
    interceptors=[OpenTelemetryInterceptor(meter_provider=MeterProvider(metric_readers=[reader]))],
)
server = make_server("127.0.0.1", 0, app, handler_class=Quiet)
threading.Thread(target=server.serve_forever, daemon=True).start()
client = ConnectClientSync(f"http://127.0.0.1:{server.server_port}")
refusals = ["not_found", "invalid_argument", "canceled", "internal"]
for code in ["", *refusals]:
    try:
        client.execute_unary(request=Status(message=code), method=method)
    except ConnectError as error:
        assert error.code.value == code
print("connectrpc", version("connectrpc"), "| connectrpc-otel", version("connectrpc-otel"))
seen = {}
for resource in reader.get_metrics_data().resource_metrics:
    for scope in resource.scope_metrics:
        for metric in scope.metrics:
            for point in metric.data.data_points:
                of = point.attributes
                code = of.get("rpc.response.status_code")
                seen[code] = of.get("error.type")
                print(f"  {metric.name} {of['rpc.system.name']} {of['rpc.method']}: code {code}, error.type {seen[code]}")
if seen != {None: None} | dict.fromkeys(refusals, "ConnectError"):
    sys.exit("Connect's instrumentation tells errors otherwise now")
PY
"$folder/venv/bin/python" "$folder/seen.py"
