"""Services in Python, Node, Go and Java with the profilers of their field, two releases each, the second of which spends more in
one function: is that function named, as the application's own, at the cost that the program's own CPU clock states?

    languages.py --binaries FOLDER --folder FOLDER [--seconds N] [--only SERVICE...]

Java's flight recorder samples at fixed times instead of CPU time, so that there only the function is judged and not its
cost. Prints a line a service and exits with 1 when one is wrong, with 77 when a registry cannot be reached. Each service is
sent two requests a second for N seconds (default 300: SDKs and agents report once a minute, and a few windows are needed to judge).
"""

import argparse
import json
import pathlib
import shutil
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.parse
import urllib.request

from registries import install

SHOP = pathlib.Path(__file__).resolve().parent / "shop"
PYTHON_PACKAGES = [
    "pyroscope-io==1.4.0",
    "py-spy==0.4.3",
    "opentelemetry-sdk==1.45.2",
    "opentelemetry-exporter-otlp-proto-http==1.45.2",
]
NODE_PACKAGES = [
    "@pyroscope/nodejs@0.6.4",
    "@opentelemetry/resources@3.1.1",
    "@opentelemetry/sdk-metrics@3.1.1",
    "@opentelemetry/exporter-metrics-otlp-proto@0.301.0",
]
# Long beside the 10 ms between two samples: what a profiler counts between them goes to whatever runs at the second one.
COST_MS = {"v1": 50, "v2": 150}
REQUESTS_PER_S = 2
RECORDING_S = 30
# How far the stated cost of the changed function may be from the program's own clock; twice that for the first release, which
# has a third of the samples. Python's profilers look at threads from outside and take one that waits for a core, or for them,
# for one that computes.
TOLERANCE = {"go": 0.05, "node": 0.05, "py": 0.15}


def compile_services(folder):
    """The Go program and the folder of the Java class; `None` where there is no compiler."""
    program, java = None, None
    if shutil.which("go"):
        program = folder / "shop-go"
        subprocess.run(["go", "build", "-o", program, SHOP / "shop.go"], check=True)
    else:
        print("skipped: Go (no compiler; Debian's package golang-go)")
    if shutil.which("javac"):
        java = folder / "java"
        subprocess.run(["javac", "-g", "-d", java, SHOP / "Shop.java"], check=True)
    else:
        print("skipped: Java (no compiler; Debian's package openjdk-17-jdk-headless)")
    return program, java


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def wait_for(what, ready, seconds=60):
    end = time.time() + seconds
    while time.time() < end:
        try:
            if ready():
                return
        except OSError:
            pass
        time.sleep(0.1)
    raise SystemExit(f"no {what} within {seconds} s")


def get(port, path, **query):
    query = f"?{urllib.parse.urlencode(query)}" if query else ""
    with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}{query}", timeout=60) as answer:
        return answer.read()


def post(port, path, body, **query):
    request = urllib.request.Request(f"http://127.0.0.1:{port}{path}?{urllib.parse.urlencode(query)}", body, method="POST")
    with urllib.request.urlopen(request, timeout=60) as answer:
        return answer.read()


class Bench:
    def __init__(self, given):
        self.binaries, self.folder, self.seconds, self.only = given.binaries, given.folder, given.seconds, given.only
        self.python, self.modules = install(self.folder, PYTHON_PACKAGES, NODE_PACKAGES)
        self.go, self.java = compile_services(self.folder)
        self.children, self.services = [], []
        self.web, self.grpc, self.http = free_port(), free_port(), free_port()
        self.config = self.folder / "emberline.yaml"

    def spawn(self, *command, name, **options):
        log = open(self.folder / f"{name}.log", "wb")
        child = subprocess.Popen([str(part) for part in command], stdout=log, stderr=log, **options)
        self.children.append(child)
        return child

    def serve(self, targets):
        """The server, scraping `{service: {version: port}}`."""
        jobs = [
            {"targets": [f"127.0.0.1:{port}"], "labels": {"service": service, "version": version}}
            for service, versions in targets.items()
            for version, port in versions.items()
        ]
        config = {"job_name": "go", "static_configs": jobs, "profiles": {"profile": {"seconds": 10}}}
        self.config.write_text(json.dumps({"scrape": {"scrape_configs": [config]}}))
        data = self.folder / f"data-{self.web}"
        ports = ["--listen", f"127.0.0.1:{self.web}", "--otlp-grpc", f"127.0.0.1:{self.grpc}"]
        ports += ["--otlp-http", f"127.0.0.1:{self.http}", "--config", self.config]
        self.spawn(self.binaries / "emberline", "serve", "--data-dir", data, *ports, name="server")
        wait_for("ready server", lambda: get(self.web, "/-/ready"))

    def proxy(self, service, version, application):
        """A sidecar in front of `application`; answers its port."""
        listen, admin = free_port(), free_port()
        config = self.folder / f"{service}-{version}.yaml"
        config.write_text(
            f"workload: {{service: {service}, version: {version}, instance: {service}-{version}}}\n"
            f'collector: {{endpoint: "http://127.0.0.1:{self.grpc}"}}\nadmin: 127.0.0.1:{admin}\n'
            f'routes: ["/quote/{{item}}"]\ninbound:\n  - {{listen: 127.0.0.1:{listen}, to: 127.0.0.1:{application}}}\n'
        )
        self.spawn(self.binaries / "emberline-proxy", "--config", config, name=f"proxy-{service}-{version}")
        wait_for("proxy", lambda: socket.create_connection(("127.0.0.1", listen)).close() or True)
        return listen

    def load(self, port, delay):
        """So many requests a second, one after the other."""
        time.sleep(delay)
        for number in range(int(self.seconds * REQUESTS_PER_S)):
            began = time.time()
            get(port, f"/quote/{number}")
            time.sleep(max(0.0, 1 / REQUESTS_PER_S - (time.time() - began)))

    def spy(self, version, pid):
        """Recordings of py-spy, one after the other: one of the whole time would be one window, which judges nothing."""
        for number in range(max(1, round(self.seconds / RECORDING_S))):
            name, began = f"spy-{version}-{number}", time.time()
            raw = self.folder / f"{name}.raw"
            record = [self.folder / "venv/bin/py-spy", "record", "--format", "raw", "--rate", "100"]
            self.spawn(*record, "--duration", RECORDING_S, "--output", raw, "--pid", pid, name=name).wait(60 + RECORDING_S)
            window = {"from": int(began), "until": int(began) + RECORDING_S}
            post(self.http, "/api/ingest", raw.read_bytes(), service="pyotel", version=version, sample_rate=100, **window)

    def run(self):
        targets = {"goproxy": {v: free_port() for v in COST_MS}} if self.go else {}
        self.serve(targets)
        http = f"http://127.0.0.1:{self.http}"
        node = {"env": {"NODE_PATH": str(self.modules), "PATH": "/usr/bin:/bin"}}
        wanted = {"pyproxy": "price_basket", "nodeproxy": "priceBasket", "pyotel": "price_basket", "nodeotel": "priceBasket"}
        if self.go:
            wanted["goproxy"] = "main.priceBasket"
        if self.java:
            wanted["javaproxy"] = "Shop.priceBasket"
        wanted = {name: function for name, function in wanted.items() if not self.only or name in self.only}
        # Two at a time: profilers that look at threads from outside take one that waits for a core for one that computes.
        names = sorted(wanted, key=lambda name: (name.split("proxy")[0].split("otel")[0], name))
        groups = [group for group in (names[0::3], names[1::3], names[2::3]) if group]
        clocks = {}
        for group in groups:
            applications, threads, spies, recordings = {}, [], [], []
            for service in group:
                for version, cost in COST_MS.items():
                    port = targets.get(service, {}).get(version) or free_port()
                    applications[service, version] = port
                    name, start = f"{service}-{version}", ["", port, cost, service, version, http]
                    if service.startswith("py"):
                        way = "pyroscope" if "proxy" in service else "otel"
                        child = self.spawn(self.python, SHOP / "shop.py", *start[1:], way, name=name)
                    elif service.startswith("node"):
                        way = "proxy" if "proxy" in service else "otel"
                        child = self.spawn(shutil.which("node"), SHOP / "shop.js", *start[1:], way, name=name, **node)
                    elif service.startswith("java"):
                        recorder = f"filename={self.folder / name}.jfr,settings=profile,dumponexit=true"
                        command = ["java", f"-XX:StartFlightRecording:{recorder}", "-cp", self.java, "Shop", port, cost]
                        recordings.append((version, time.time(), self.spawn(*command, name=name)))
                    else:
                        self.spawn(self.go, port, cost, name=name)
                    wait_for(name, lambda port=port: get(port, "/clock"))
                    entry = self.proxy(service, version, port) if "proxy" in service else port
                    # One after the other, so that no two of them wait for a core.
                    delay = len(threads) / 4 / REQUESTS_PER_S
                    threads.append(threading.Thread(target=self.load, args=(entry, delay)))
                    if service == "pyotel":
                        spies.append(threading.Thread(target=self.spy, args=(version, child.pid)))
            for thread in [*threads, *spies]:
                thread.start()
            for thread in [*threads, *spies]:
                thread.join()
            for (service, version), port in applications.items():
                clocks[service, version] = json.loads(get(port, "/clock"))
            for version, began, java in recordings:
                java.terminate()
                java.wait(60)
                file = self.folder / f"javaproxy-{version}.jfr"
                command = [self.binaries / "emberline", "import", file, "--service", "javaproxy", "--version", version]
                command += ["--url", f"http://127.0.0.1:{self.http}", "--kind", "cpu"]
                subprocess.run([str(part) for part in command], check=True, stdout=subprocess.DEVNULL)
        # The default interval of SDKs and agents, so that the last of all is there.
        time.sleep(65)
        wrong = [service for service in wanted if not self.judge(service, wanted[service], clocks)]
        sys.exit(1 if wrong else 0)

    def judge(self, service, function, clocks):
        try:
            answer = json.loads(get(self.web, "/api/v1/diff", service=service, baseline="v1", candidate="v2", per="request"))
        except urllib.error.HTTPError as error:
            print(f"WRONG {service}: {error.code} {error.read()[:300]!r}")
            return False
        rows = {row["name"]: row for row in answer["functions"]}
        guilty = next((row["name"] for row in answer["functions"] if row["id"] == answer["guilty"]), None)
        row = rows.get(function)
        if not row:
            print(f"WRONG {service}: no function {function} among {sorted(rows)[:20]}: {answer['summary']}")
            return False
        right = guilty == function and not row["library"]
        ratios = {}
        for version, key in (("v1", "total_a"), ("v2", "total_b")):
            clock = clocks[service, version]
            ratios[version] = row[key] / (clock["price_basket_ns"] / clock["requests"])
        most = TOLERANCE.get(service.split("proxy")[0].split("otel")[0])
        right &= most is None or abs(ratios["v1"] - 1) <= 2 * most and abs(ratios["v2"] - 1) <= most
        stated = " and ".join(f"{ratio:.3f}" for ratio in ratios.values())
        print(f"{'right' if right else 'WRONG'} {service}: guilty {guilty}, {function} at {stated} of its own clock; {answer['summary']}")
        return right

    def end(self):
        for child in self.children:
            child.terminate()
        for child in self.children:
            try:
                child.wait(10)
            except subprocess.TimeoutExpired:
                child.kill()


def main():
    arguments = argparse.ArgumentParser()
    arguments.add_argument("--binaries", type=pathlib.Path, required=True)
    arguments.add_argument("--folder", type=pathlib.Path, required=True)
    arguments.add_argument("--seconds", type=float, default=300)
    arguments.add_argument("--only", nargs="*", help="services, such as pyotel; all unless given")
    given = arguments.parse_args()
    given.folder.mkdir(parents=True, exist_ok=True)
    bench = Bench(given)
    try:
        bench.run()
    finally:
        bench.end()


if __name__ == "__main__":
    main()
