"""Runs clients of other makers, unmodified, against a server and compares what is read back with what they sent.

    run.py --web ADDRESS --http ADDRESS --grpc ADDRESS --folder FOLDER [--seconds N] [--record FOLDER]

Installs the clients from their registries into FOLDER (no install scripts are run). Exits with 0 when all totals are
equal, with 1 when one is not, and with 77 when a registry cannot be reached. `--record` keeps one request of each
client that speaks HTTP, for the fixtures of `collector/tests/fixtures`.
"""

import argparse
import http.server
import json
import os
import pathlib
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.parse
import urllib.request

import pprof_totals
from registries import install

HERE = pathlib.Path(__file__).resolve().parent
PYTHON_PACKAGES = [
    "pyroscope-io",
    "opentelemetry-sdk",
    "opentelemetry-exporter-otlp-proto-grpc",
    "opentelemetry-exporter-otlp-proto-http",
    "opentelemetry-instrumentation-flask",
    "flask",
]
NODE_PACKAGES = [
    "@pyroscope/nodejs",
    "@datadog/pprof",
    "@opentelemetry/api",
    "@opentelemetry/resources",
    "@opentelemetry/sdk-metrics",
    "@opentelemetry/exporter-metrics-otlp-http",
    "@opentelemetry/exporter-metrics-otlp-proto",
    "@opentelemetry/exporter-metrics-otlp-grpc",
    "@opentelemetry/sdk-node",
    "@opentelemetry/instrumentation-http",
    "@opentelemetry/instrumentation-express",
    "express",
]


class Tee:
    """Passes requests on to the server and keeps them."""

    def __init__(self, target):
        self.seen = []
        tee = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def body(self):
                if self.headers.get("transfer-encoding") != "chunked":
                    return self.rfile.read(int(self.headers.get("content-length") or 0))
                chunks = b""
                while True:
                    length = int(self.rfile.readline().strip(), 16)
                    chunks += self.rfile.read(length)
                    self.rfile.readline()
                    if length == 0:
                        return chunks

            def do_POST(self):
                body = self.body()
                kept = ("content-type", "content-encoding")
                headers = {k.lower(): v for k, v in self.headers.items() if k.lower() in kept}
                request = urllib.request.Request(f"http://{target}{self.path}", body, headers, method="POST")
                try:
                    with urllib.request.urlopen(request) as answer:
                        status, content, kind = answer.status, answer.read(), answer.headers.get("content-type", "")
                except urllib.error.HTTPError as error:
                    status, content, kind = error.code, error.read(), ""
                tee.seen.append((self.path, headers, body, status, content))
                self.send_response(status)
                self.send_header("content-type", kind)
                self.send_header("content-length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            def log_message(self, *_):
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.address = f"http://127.0.0.1:{self.server.server_address[1]}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def sent(self):
        """Totals of the profiles of both Pyroscope clients, by service and sample type."""
        sums = {"pyshop": {}, "nodeshop": {}}
        for path, headers, body, status, content in self.seen:
            if status != 200:
                raise SystemExit(f"{path}: {status} {content[:300]!r}")
            kind = headers.get("content-type", "")
            if path.startswith("/push"):
                service, found = "pyshop", pprof_totals.push_totals(body)
            elif not path.startswith("/ingest"):
                continue
            elif "multipart" in kind:
                service, found = "nodeshop", pprof_totals.form_totals(body, kind)
            else:
                service, found = "nodeshop", pprof_totals.totals(body)
            for name, value in found.items():
                sums[service][name] = sums[service].get(name, 0) + value
        return sums

    def refused(self):
        """What was answered with anything but 200, of all signals: an SDK logs an error for each."""
        return [f"{path}: {status} {content[:200]!r}" for path, _, _, status, content in self.seen if status != 200]

    def record_all(self, folder, name):
        """Every request for metrics, in order."""
        metrics = [request for request in self.seen if request[0] == "/v1/metrics"]
        for at, request in enumerate(metrics, 1):
            write(folder / f"{name}-{at}.http", *request[:3])

    def record(self, folder):
        """The smallest request of each address, as it came over the wire."""
        best = {}
        for path, headers, body, _, _ in self.seen:
            form = headers.get("content-type", "").split(";")[0].rpartition("/")[2] or "plain"
            key = path.split("?")[0].strip("/").replace("/", "-") + "-" + form
            if key not in best or len(body) < len(best[key][2]):
                best[key] = (path, headers, body)
        for key, (path, headers, body) in best.items():
            write(folder / f"{key}.http", path, headers, body)


def write(file, path, headers, body):
    """One request as it came over the wire."""
    head = f"POST {path} HTTP/1.1\r\n" + "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    file.write_bytes(head.encode() + f"content-length: {len(body)}\r\n\r\n".encode() + body)


def get(web, path, **query):
    with urllib.request.urlopen(f"http://{web}{path}?{urllib.parse.urlencode(query)}") as answer:
        return answer.read()


def stored_profiles(web, service):
    """Totals of all profile types of a service, read back as pprof files: by sample type and unit."""
    listed = json.loads(get(web, "/api/v1/profile_types", selector=f'{{service="{service}"}}'))
    sums = {}
    for kind in listed["profile_types"]:
        selector = f'{{service="{service}",version="v9"}}'
        file = get(web, "/api/v1/merge", selector=selector, profile_type=kind["id"], format="pprof")
        sums[f"{kind['sample_type']}/{kind['unit']}"] = sum(pprof_totals.totals(file).values())
    return sums


def stored_routes(web, service):
    """Requests of a service by route."""
    answer = json.loads(get(web, "/api/v1/service", service=service))
    return {route["route"]: route["requests"] for route in answer["routes"] if route["version"] == "v9"}


def stored_requests(web, service):
    """Requests of all routes of a service."""
    return sum(stored_routes(web, service).values())


def run(command, **options):
    finished = subprocess.run([str(part) for part in command], stdout=subprocess.PIPE, timeout=180, **options)
    if finished.returncode != 0:
        raise SystemExit(f"{command[1]} ended with {finished.returncode}")
    lines = finished.stdout.decode().strip().splitlines()
    return json.loads(lines[-1]) if lines and lines[-1].startswith("{") else {}


def main():
    arguments = argparse.ArgumentParser()
    for name in ("web", "http", "grpc"):
        arguments.add_argument(f"--{name}", required=True)
    arguments.add_argument("--folder", type=pathlib.Path, required=True)
    arguments.add_argument("--seconds", type=float, default=8)
    arguments.add_argument("--record", type=pathlib.Path)
    given = arguments.parse_args()
    given.folder.mkdir(parents=True, exist_ok=True)
    python, modules = install(given.folder, PYTHON_PACKAGES, NODE_PACKAGES)
    node = {"env": {**os.environ, "NODE_PATH": str(modules)}}
    tee = Tee(given.http)
    wrong = []

    def compare(what, sent, got):
        equal = sent == got and sent > 0
        print(f"{'equal  ' if equal else 'UNEQUAL'} {what}: sent {sent}, read back {got}")
        if not equal:
            wrong.append(what)

    run([python, HERE / "pyroscope_io.py", tee.address, given.seconds])
    run(["node", HERE / "pyroscope_node.js", tee.address, given.seconds], **node)
    datadog = run(["node", HERE / "datadog_pprof.js", tee.address, given.seconds], **node)
    metrics = {}
    for protocol, address in (("grpc", f"http://{given.grpc}"), ("http", tee.address)):
        metrics[f"otelpy-{protocol}"] = run([python, HERE / "otel_metrics.py", protocol, address])
    for protocol, address in (("http", tee.address), ("proto", tee.address), ("grpc", f"http://{given.grpc}")):
        metrics[f"oteljs-{protocol}"] = run(["node", HERE / "otel_metrics.js", protocol, address], **node)
    defaults, tees = {}, {}
    for service, command, options in (
        ("otelpy-defaults", [python, HERE / "otel_defaults.py"], {}),
        ("oteljs-defaults", ["node", HERE / "otel_defaults.js"], node),
    ):
        tees[service] = Tee(given.http)
        defaults[service] = run([*command, tees[service].address], **options)
    sent = tee.sent()
    sent["ddshop"] = {name: value for file in datadog.values() for name, value in file.items()}
    if given.record:
        given.record.mkdir(parents=True, exist_ok=True)
        tee.record(given.record)
        for service, its in tees.items():
            its.record_all(given.record, service)
    # What is acknowledged is on disk at once and in answers a moment later.
    time.sleep(2)
    for service, totals in sent.items():
        got = stored_profiles(given.web, service)
        for name, value in totals.items():
            compare(f"{service} {name}", value, got.get(name, 0))
    for service, counted in metrics.items():
        compare(f"{service} requests", counted["requests"], stored_requests(given.web, service))
    for service, counted in defaults.items():
        routes = stored_routes(given.web, service)
        compare(f"{service} requests", counted["requests"], sum(routes.values()))
        for route, requests in counted["routes"].items():
            compare(f"{service} {route}", requests, routes.get(route, 0))
        for refused in tees[service].refused():
            print(f"REFUSED {service} {refused}")
            wrong.append(service)
    sys.exit(1 if wrong else 0)


if __name__ == "__main__":
    main()
