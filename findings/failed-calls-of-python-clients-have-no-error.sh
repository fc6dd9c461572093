#!/usr/bin/env bash
# What OpenTelemetry's instrumentations of Python's HTTP clients count when a call gets no answer.
#
# A good guess: a request without a status and with `error.type`, as the conventions ask for and as `requests` has it. Seen, with
# the conventions' current names (`OTEL_SEMCONV_STABILITY_OPT_IN=http`) and a call that times out: aiohttp's has neither a status
# nor `error.type`, so it is a success to whoever counts errors; httpx's and urllib3's do not count the call at all, so that the
# slowest calls are missing from the durations and the rate of requests falls as a destination fails. With the names that are
# still the default, `requests` has no `error.type` either.
#
# Emberline counts a request of Python's instrumentations without a status as failed (`model/src/otlp/durations.rs`) and says in
# `docs/clients.md` which clients leave such calls out.
#
# Needs python3 with venv. Ends with 0 while that is so.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check aiohttp==3.14.5 httpx==0.28.1 urllib3==2.8.0 requests==2.34.2 \
  opentelemetry-sdk==1.45.1 opentelemetry-instrumentation-{aiohttp-client,httpx,urllib3,requests}==0.66b1
cat >"$folder/seen.py" <<'PY'
import asyncio
import json
import socket
import sys
import threading
from importlib import import_module

from opentelemetry import metrics
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader

reader = InMemoryMetricReader()
metrics.set_meter_provider(MeterProvider(metric_readers=[reader]))
listener = socket.create_server(("127.0.0.1", 0))
address = f"http://127.0.0.1:{listener.getsockname()[1]}"


def serve():
    """Answers the first request of a connection if it asks for `/quick`, and no other."""
    while True:
        connection = listener.accept()[0]
        connections.append(connection)
        if connection.recv(65536).startswith(b"GET /quick"):
            connection.sendall(b"HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 2\r\n\r\nok")


async def with_aiohttp(path):
    import aiohttp

    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=0.3)) as session:
        async with session.get(address + path) as answer:
            await answer.read()


def ask(client, path):
    if client == "aiohttp":
        asyncio.run(with_aiohttp(path))
    elif client == "httpx":
        import_module("httpx").get(address + path, timeout=0.3)
    elif client == "requests":
        import_module("requests").get(address + path, timeout=0.3)
    else:
        import_module("urllib3").PoolManager().request("GET", address + path, timeout=0.3, retries=False)


connections = []
threading.Thread(target=serve, daemon=True).start()
client = sys.argv[1]
module, name = {
    "aiohttp": ("aiohttp_client", "AioHttpClientInstrumentor"),
    "httpx": ("httpx", "HTTPXClientInstrumentor"),
    "requests": ("requests", "RequestsInstrumentor"),
    "urllib3": ("urllib3", "URLLib3Instrumentor"),
}[client]
getattr(import_module("opentelemetry.instrumentation." + module), name)().instrument()
ask(client, "/quick")
try:
    ask(client, "/never")
    sys.exit("there was an answer")
except Exception:
    pass
seen = []
for resource in reader.get_metrics_data().resource_metrics:
    for scope in resource.scope_metrics:
        for metric in scope.metrics:
            if metric.name in ("http.client.duration", "http.client.request.duration"):
                for point in metric.data.data_points:
                    of = point.attributes
                    status = of.get("http.response.status_code", of.get("http.status_code"))
                    seen.append([status, of.get("error.type"), point.count])
print(json.dumps(sorted(seen, key=str)))
PY
look() { # names, client, what is expected: [status, error.type, requests]
  seen=$(OTEL_SEMCONV_STABILITY_OPT_IN=$1 "$folder/venv/bin/python" "$folder/seen.py" "$2")
  echo "$2 $("$folder/venv/bin/pip" list 2>/dev/null | awk -v name="$2" '$1 == name { print $2 }'), names '$1': $seen"
  [ "$seen" = "$3" ] || { echo "expected $3"; exit 1; }
}
echo "one call that is answered and one that times out; status, error.type, calls:"
look http requests '[[200, null, 1], [null, "ReadTimeout", 1]]'
look http aiohttp '[[200, null, 1], [null, null, 1]]'
look http httpx '[[200, null, 1]]'
look http urllib3 '[[200, null, 1]]'
look default requests '[[200, null, 1], [null, null, 1]]'
