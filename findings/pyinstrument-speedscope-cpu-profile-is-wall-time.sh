#!/usr/bin/env bash
# pyinstrument 5.1.3 names the profile in its speedscope file "CPU profile for ...", but what it measures is wall time: a
# program that computes for 0.3 s and sleeps for 1 s has a profile of about 1.3 s. The file has no other word that would
# tell, except the exporter's name. A reader that believes the name counts sleep as CPU time.
#
# Needs python3 with venv. Exits with 1 when pyinstrument behaves otherwise.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet pyinstrument==5.1.3
cat >"$folder/app.py" <<'PY'
import time


def work():
    end = time.process_time() + 0.3
    while time.process_time() < end:
        sum(range(1000))


def sleeper():
    time.sleep(1.0)


work()
sleeper()
print("CPU seconds of the program:", round(time.process_time(), 2))
PY
"$folder/venv/bin/pip" list 2>/dev/null | grep -i pyinstrument
cd "$folder"
venv/bin/pyinstrument -r speedscope -o profile.json app.py
python3 - <<'PY'
import json
import sys

file = json.load(open("profile.json"))
profile = file["profiles"][0]
print("exporter", file["exporter"], "| name:", profile["name"], "| unit:", profile["unit"], "| endValue:", profile["endValue"])
called_cpu = "CPU profile" in profile["name"]
counts_sleep = profile["endValue"] > 1.2
print("it is called a CPU profile:", called_cpu, "| and counts the second of sleep:", counts_sleep)
sys.exit(0 if called_cpu and counts_sleep else 1)
PY
