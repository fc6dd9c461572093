#!/usr/bin/env bash
# memray 1.20.0: `memray transform speedscope` writes two profiles over the same stacks: "Memory" in `bytes` and
# "Allocations" in `none`. Neither is what the program allocated: both are of the moment at which most memory was in use.
# A program that allocates 60 MB in 1,200 calls, 50 MB of it briefly, has a file of 10 MB and 143 allocations. So the bytes
# are a gauge that must not be added up over time, and the unit `none`, which other exporters use for samples of CPU time,
# counts objects.
#
# Needs python3 with venv. Exits with 1 when memray behaves otherwise.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet memray==1.20.0
cat >"$folder/mem.py" <<'PY'
def churn():
    for _ in range(1000):
        bytearray(50_000)


def hold():
    return [bytearray(100_000) for _ in range(100)]


kept = hold()
churn()
PY
"$folder/venv/bin/memray" --version
cd "$folder"
venv/bin/memray run -q -o run.bin mem.py
venv/bin/memray transform speedscope -o speedscope.json run.bin
venv/bin/memray stats --json -o stats.json run.bin
python3 - <<'PY'
import json
import sys

file = json.load(open("speedscope.json"))
stats = json.load(open("stats.json"))
sums = {(p["name"], p["unit"]): sum(p["weights"]) for p in file["profiles"]}
print("exporter", file["exporter"], sums)
print("allocated in all:", stats["total_bytes_allocated"], "bytes in", stats["total_num_allocations"], "calls")
print("highest mark:", stats["metadata"]["peak_memory"], "bytes")
is_peak = sums[("Memory", "bytes")] == stats["metadata"]["peak_memory"]
is_less = sums[("Memory", "bytes")] < stats["total_bytes_allocated"] / 3
objects = sums[("Allocations", "none")] < stats["total_num_allocations"] / 3
sys.exit(0 if is_peak and is_less and objects else 1)
PY
