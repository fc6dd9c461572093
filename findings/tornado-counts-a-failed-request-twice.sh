#!/usr/bin/env bash
# How OpenTelemetry's Tornado instrumentation counts a request whose handler raises.
#
# A good guess: once, with the status that the caller got. Seen: `http.server.duration` is recorded when the exception is logged
# and once more when the request is finished. A handler that fails unexpectedly is one request with status 200 (what Tornado's
# handler holds until the error page is written) and one with 500, so a service that fails always shows half of its requests
# failed; one that raises `HTTPError(404)`, as Tornado's handlers do, has each of these requests twice.
#
# And where the route is: under the old names in `http.target`, but only since 0.64b0; up to 0.63b0 the same attribute is the
# path, with a series for each id.
#
# Emberline takes the route from `http.target` since that version (`model/src/otlp/writers.rs`, `ROUTE_IN_TARGET`) and has the
# rest in a table of what SDKs report otherwise than a proxy (`docs/clients.md`).
#
# Needs python3 with venv. Ends with 0 while that is so.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cat >"$folder/seen.py" <<'PY'
import asyncio
import logging
import sys
from importlib.metadata import version

import tornado.httpserver
import tornado.netutil
import tornado.web
from opentelemetry import metrics
from opentelemetry.instrumentation.tornado import TornadoInstrumentor
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from tornado.httpclient import AsyncHTTPClient

logging.disable(logging.CRITICAL)
reader = InMemoryMetricReader()
metrics.set_meter_provider(MeterProvider(metric_readers=[reader]))
TornadoInstrumentor().instrument()


class Quote(tornado.web.RequestHandler):
    def get(self, item):
        self.write(item)


class Failing(tornado.web.RequestHandler):
    def get(self):
        raise ValueError("unexpected")


class Missing(tornado.web.RequestHandler):
    def get(self):
        raise tornado.web.HTTPError(404)


async def main():
    app = tornado.web.Application([(r"/quote/([0-9]+)", Quote), ("/failing", Failing), ("/missing", Missing)])
    server = tornado.httpserver.HTTPServer(app)
    sockets = tornado.netutil.bind_sockets(0, "127.0.0.1")
    server.add_sockets(sockets)
    client = AsyncHTTPClient()
    statuses = []
    for path in ("/quote/1", "/quote/2", "/failing", "/missing"):
        address = f"http://127.0.0.1:{sockets[0].getsockname()[1]}{path}"
        statuses.append((await client.fetch(address, raise_error=False)).code)
    return statuses


assert asyncio.run(main()) == [200, 200, 500, 404]
print("opentelemetry-instrumentation-tornado", version("opentelemetry-instrumentation-tornado"))
seen = {}
for resource in reader.get_metrics_data().resource_metrics:
    for scope in resource.scope_metrics:
        for metric in scope.metrics:
            if metric.name == "http.server.duration":
                for point in metric.data.data_points:
                    key = (point.attributes["http.target"], point.attributes["http.status_code"])
                    seen[key] = point.count
for (target, status), count in seen.items():
    print(f"  {target} {status}: {count}")
quotes = {
    "0.63b0": {("/quote/1", 200): 1, ("/quote/2", 200): 1},
    "0.66b1": {("/quote/{item}", 200): 2},
}[version("opentelemetry-instrumentation-tornado")]
if seen != quotes | {("/failing", 200): 1, ("/failing", 500): 1, ("/missing", 404): 2}:
    sys.exit("Tornado's instrumentation counts otherwise now")
PY
for pair in "0.63b0 1.42.0" "0.66b1 1.45.1"; do
  read -r instrumentation sdk <<<"$pair"
  python3 -m venv "$folder/$instrumentation"
  "$folder/$instrumentation/bin/pip" install --quiet --disable-pip-version-check tornado==6.5.2 setuptools==80.9.0 \
    "opentelemetry-sdk==$sdk" "opentelemetry-instrumentation-tornado==$instrumentation"
  "$folder/$instrumentation/bin/python" "$folder/seen.py"
done
