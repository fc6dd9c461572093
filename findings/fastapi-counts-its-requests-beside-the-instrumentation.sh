#!/usr/bin/env bash
# Who counts the requests of a FastAPI application that runs inside OpenTelemetry's ASGI middleware.
#
# A good guess: the middleware. Seen: FastAPI 0.165.0 measures itself as soon as the process has a meter provider, and stands back
# only where it finds that middleware in its own stack. Wrapped around the application (as the middleware's documentation has it),
# or in a Starlette application that holds it, both measure each request: `http.server.duration` in whole milliseconds in the
# scope `opentelemetry.instrumentation.asgi`, and `http.server.request.duration` in seconds in the scope `fastapi`. Two names in
# two scopes look like two kinds of requests. With `FastAPIInstrumentor.instrument_app` it is those of mounted applications that
# are counted twice, the second time under a route without the place where it is mounted.
#
# Emberline counts a request of two such scopes once (`model/src/otlp/writers.rs`, `COUNTED_BY`).
#
# Needs python3 with venv. Ends with 0 while that is so.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check fastapi==0.165.0 starlette==1.10.0 httpx==0.28.1 \
  opentelemetry-sdk==1.45.1 opentelemetry-instrumentation-asgi==0.66b1 opentelemetry-instrumentation-fastapi==0.66b1
cat >"$folder/seen.py" <<'PY'
import asyncio
import sys
from importlib.metadata import version

import fastapi
import httpx
from opentelemetry import metrics
from opentelemetry.instrumentation.asgi import OpenTelemetryMiddleware
from opentelemetry.instrumentation.fastapi import FastAPIInstrumentor
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader

reader = InMemoryMetricReader()
metrics.set_meter_provider(MeterProvider(metric_readers=[reader]))


def shop():
    """An application with 10 quotes and, mounted, 3 items to ask for."""
    app, stock = fastapi.FastAPI(), fastapi.FastAPI()
    app.get("/quote/{item}")(lambda item: item)
    stock.get("/item/{item}")(lambda item: item)
    app.mount("/stock", stock)
    return app


async def ask(app):
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://shop.example") as client:
        for path in [f"/quote/{item}" for item in range(10)] + [f"/stock/item/{item}" for item in range(3)]:
            assert (await client.get(path)).status_code == 200


def counted():
    """Requests counted so far, by scope and name of the metric, and by route."""
    seen = {}
    for resource in reader.get_metrics_data().resource_metrics:
        for scope in resource.scope_metrics:
            for metric in scope.metrics:
                if metric.name in ("http.server.duration", "http.server.request.duration"):
                    for point in metric.data.data_points:
                        route = point.attributes.get("http.route") or point.attributes.get("http.target")
                        seen[scope.scope.name, metric.name, route] = point.count
    return seen


print("fastapi", version("fastapi"), "| opentelemetry-instrumentation-asgi", version("opentelemetry-instrumentation-asgi"))
plain = shop()
wrapped = {"asgi": OpenTelemetryMiddleware(plain), "instrument_app": shop()}
FastAPIInstrumentor.instrument_app(wrapped["instrument_app"])
before, grown = {}, {}
for name, app in wrapped.items():
    asyncio.run(ask(app))
    after = counted()
    grown[name] = {key: count - before.get(key, 0) for key, count in after.items() if count > before.get(key, 0)}
    before = after
    print(f"{name}, 13 requests:")
    for (scope, metric, route), count in grown[name].items():
        print(f"  {scope}  {metric}  {route}: {count}")
contrib, own = "http.server.duration", "http.server.request.duration"
expected = {
    "asgi": {
        ("opentelemetry.instrumentation.asgi", contrib, "/quote/{item}"): 10,
        ("opentelemetry.instrumentation.asgi", contrib, "/stock/item/{item}"): 3,
        ("fastapi", own, "/quote/{item}"): 10,
        ("fastapi", own, "/stock/item/{item}"): 3,
    },
    "instrument_app": {
        ("opentelemetry.instrumentation.fastapi", contrib, "/quote/{item}"): 10,
        ("opentelemetry.instrumentation.fastapi", contrib, "/stock/item/{item}"): 3,
        ("fastapi", own, "/item/{item}"): 3,
    },
}
if grown != expected:
    sys.exit("FastAPI and its instrumentation count otherwise now")
PY
"$folder/venv/bin/python" "$folder/seen.py"
