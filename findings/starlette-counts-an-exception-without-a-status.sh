#!/usr/bin/env bash
# What OpenTelemetry's Starlette instrumentation counts for a handler that raises.
#
# A good guess: a 500, which is what the caller gets and what the same project's instrumentation of FastAPI, a Starlette
# application, counts. Seen: Starlette makes the 500 outside of the middleware that measures. The request is in
# `http.server.duration` (and, under the current names, in `http.server.request.duration`) without a status and without
# `error.type`: whoever counts 5xx, or requests with an `error.type`, sees none fail. So does the ASGI middleware itself where it
# is added with `add_middleware`.
#
# Emberline counts a request of Python's instrumentations without a status as failed (`model/src/otlp/durations.rs`).
#
# Needs python3 with venv. Ends with 0 while that is so.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check starlette==1.10.0 fastapi==0.165.0 httpx==0.28.1 \
  opentelemetry-sdk==1.45.1 opentelemetry-instrumentation-starlette==0.66b1 opentelemetry-instrumentation-fastapi==0.66b1
cat >"$folder/seen.py" <<'PY'
import asyncio
import sys
from importlib.metadata import version

import fastapi
import httpx
from opentelemetry import metrics
from opentelemetry.instrumentation.fastapi import FastAPIInstrumentor
from opentelemetry.instrumentation.starlette import StarletteInstrumentor
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from starlette.applications import Starlette
from starlette.routing import Route

reader = InMemoryMetricReader()
metrics.set_meter_provider(MeterProvider(metric_readers=[reader]))


async def failing(request: fastapi.Request):
    raise ValueError("unexpected")


async def ask(app):
    transport = httpx.ASGITransport(app, raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url="http://shop.example") as client:
        return (await client.get("/failing")).status_code


starlette, fast = Starlette(routes=[Route("/failing", failing)]), fastapi.FastAPI()
fast.get("/failing")(failing)
StarletteInstrumentor.instrument_app(starlette)
FastAPIInstrumentor.instrument_app(fast)
assert [asyncio.run(ask(starlette)), asyncio.run(ask(fast))] == [500, 500]
print("opentelemetry-instrumentation-starlette", version("opentelemetry-instrumentation-starlette"))
seen = {}
for resource in reader.get_metrics_data().resource_metrics:
    for scope in resource.scope_metrics:
        for metric in scope.metrics:
            if metric.name in ("http.server.duration", "http.server.request.duration"):
                for point in metric.data.data_points:
                    of = point.attributes
                    status = of.get("http.response.status_code", of.get("http.status_code"))
                    print(f"  {scope.scope.name} {metric.name}: status {status}, error.type {of.get('error.type')}")
                    seen[scope.scope.name.split(".")[-1]] = (status, of.get("error.type"))
if seen["starlette"] != (None, None) or seen["fastapi"][0] != 500:
    sys.exit("exceptions are counted otherwise now")
PY
for names in default http; do
  OTEL_SEMCONV_STABILITY_OPT_IN=$names "$folder/venv/bin/python" "$folder/seen.py"
done
