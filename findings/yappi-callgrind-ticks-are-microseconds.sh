#!/usr/bin/env bash
# yappi 1.6.10 calls its one event in callgrind files `Ticks`, which valgrind's tools show as bare numbers and nobody can
# divide by time. They are microseconds of the clock that was chosen (the CPU's by default). And the name of a function holds
# its file and first line (`work /srv/app.py:7`), beside the `fl=` line that names the file already: a reader that takes the
# name as it is has another function after each edit above it.
#
# Needs python3 with venv. Exits with 1 when yappi behaves otherwise.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet yappi==1.6.10
"$folder/venv/bin/pip" list 2>/dev/null | grep -i yappi
cd "$folder"
cat >app.py <<'PY'
import json
import time

import yappi


def work():
    total = 0
    for number in range(3_000_000):
        total += number % 7
    return total


yappi.start()
before = time.thread_time()
work()
spent = time.thread_time() - before
yappi.stop()
yappi.get_func_stats().save("profile.callgrind", type="callgrind")
json.dump(spent, open("spent.json", "w"))
PY
venv/bin/python app.py
grep -E '^(creator|events|fn=|fl=)' profile.callgrind
python3 - <<'PY'
import json
import re
import sys

spent = json.load(open("spent.json"))
text = open("profile.callgrind").read()
cost = int(re.search(r"^fn=\(\d+\)\n\d+ (\d+)", text, re.M)[1])
print(f"CPU of work by its own clock: {spent * 1e6:.0f} us | ticks: {cost}")
are_microseconds = 0.8 < cost / (spent * 1e6) < 1.2
has_line = re.search(r"^fn=\(\d+\) work .*app\.py:7$", text, re.M) is not None
print("ticks are microseconds:", are_microseconds, "| the name holds file and line:", has_line)
sys.exit(0 if are_microseconds and has_line and "events: Ticks" in text else 1)
PY
