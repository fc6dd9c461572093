#!/usr/bin/env bash
# What OpenTelemetry's Flask instrumentation takes for the duration of an answer that is streamed.
#
# A good guess: the time until its last byte, as the same project's instrumentation of FastAPI does, and as proxies and callers
# see it. Seen: `http.server.duration` ends when Flask hands the iterator over, before its first piece is made. A download that
# takes half a second is a request of 0 ms, and one whose iterator fails half-way, so that the caller has a torn answer, is
# counted as a 200 without an error. Whoever lays latencies of a service's own metrics beside a proxy's sees two different
# things for such a route, and a release that makes streams slower is not seen in the former at all.
#
# `docs/clients.md` has it in a table of what SDKs report otherwise than a proxy.
#
# Needs python3 with venv. Ends with 0 while that is so.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check flask==3.1.3 fastapi==0.165.0 httpx==0.28.1 \
  opentelemetry-sdk==1.45.1 opentelemetry-instrumentation-flask==0.66b1 opentelemetry-instrumentation-fastapi==0.66b1
cat >"$folder/seen.py" <<'PY'
import asyncio
import sys
import time
from importlib.metadata import version

import httpx
from fastapi import FastAPI
from fastapi.responses import StreamingResponse
from flask import Flask, Response
from opentelemetry import metrics
from opentelemetry.instrumentation.fastapi import FastAPIInstrumentor
from opentelemetry.instrumentation.flask import FlaskInstrumentor
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader

PIECES = 5
reader = InMemoryMetricReader()
metrics.set_meter_provider(MeterProvider(metric_readers=[reader]))
flask = Flask("shop")
FlaskInstrumentor().instrument_app(flask)
fastapi = FastAPI()


def pieces():
    for _ in range(PIECES):
        time.sleep(0.1)
        yield b"piece"


def torn():
    yield b"piece"
    raise RuntimeError("torn")


@flask.get("/flask")
def of_flask():
    return Response(pieces())


@flask.get("/torn")
def torn_of_flask():
    return Response(torn())


@fastapi.get("/fastapi")
def of_fastapi():
    return StreamingResponse(pieces())


FastAPIInstrumentor.instrument_app(fastapi)


async def ask_fastapi():
    async with httpx.AsyncClient(transport=httpx.ASGITransport(fastapi), base_url="http://shop.example") as client:
        return (await client.get("/fastapi")).content


begun = time.monotonic()
body = flask.test_client().get("/flask").data
taken = time.monotonic() - begun
try:
    flask.test_client().get("/torn").data
    failed = False
except RuntimeError:
    failed = True
assert failed and body == asyncio.run(ask_fastapi()) == b"piece" * PIECES

print("opentelemetry-instrumentation-flask", version("opentelemetry-instrumentation-flask"))
print(f"the stream of Flask took its caller {taken * 1000:.0f} ms")
seen = {}
for resource in reader.get_metrics_data().resource_metrics:
    for scope in resource.scope_metrics:
        for metric in scope.metrics:
            if metric.name == "http.server.duration":
                for point in metric.data.data_points:
                    seen[point.attributes["http.target"]] = point
                    print(point.attributes["http.target"], point.attributes["http.status_code"], f"{point.sum:.0f} ms")
least = PIECES * 100
as_described = (
    taken * 1000 >= least
    and seen["/flask"].sum < 100
    and seen["/fastapi"].sum >= least
    and seen["/torn"].attributes["http.status_code"] == 200
)
sys.exit(0 if as_described else 1)
PY
"$folder/venv/bin/python" "$folder/seen.py"
