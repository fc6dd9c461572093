#!/usr/bin/env bash
# What the events of a callgrind file are that pprofile 2.2.0 wrote.
#
# A good guess: counts of something, which add up over lines to those of a function and over functions to the program's, as all
# costs in this format do; that is what kcachegrind and `callgrind_annotate` do with them. Seen: of `hits microseconds usphit` the
# third is the second by the first, line by line: microseconds per hit. Its sum is of nothing; a line that is never repeated
# counts in full, the busiest loop for a few. The second is wall time, although the event names no clock. And a function is
# `name:line`, so that a line above makes it another one.
#
# pyprof2calltree 1.4.5 is the other way round: its one event is called `ns`, which says a unit and nothing else.
#
# Emberline drops events that are one thing by another, takes those that are called as a unit of time for wall time, and takes the
# line off the name (`model/src/formats/callgrind.rs`).
#
# Needs python3 with venv. Ends with 0 while that is so.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check pprofile==2.2.0 pyprof2calltree==1.4.5
cat >app.py <<'PY'
import time


def work():
    total = 0
    for number in range(300_000):
        total += number % 7
    return total


def main():
    work()
    time.sleep(0.5)


main()
PY
venv/bin/pprofile --format callgrind --out pprofile.callgrind app.py
python3 -m cProfile -o app.pstats app.py
venv/bin/pyprof2calltree -i app.pstats -o calltree.callgrind >/dev/null
grep -E '^(creator|events?):' pprofile.callgrind
grep -E '^(creator|events?):' calltree.callgrind
python3 - <<'PY'
import re
import sys

lines = {}
function = called = None
for line in open("pprofile.callgrind"):
    if match := re.match(r"fn=(.*)", line):
        function = match[1]
    elif line.startswith("calls="):
        called = True
    elif match := re.match(r"(\d+) (\d+) (\d+) (\d+)$", line):
        if not called:
            lines[function, int(match[1])] = [int(number) for number in match.groups()[1:]]
        called = False
names = {function for function, _ in lines}
loop, wait = lines["work:4", 7], lines["main:11", 13]
print("the loop's line: hits, microseconds, usphit", loop)
print("the line that sleeps:                       ", wait)
ratio = all(abs(each - spent // max(hits, 1)) <= 1 for hits, spent, each in (loop, wait))
if not (ratio and loop[2] < 10 and wait[1] >= 500_000 and wait[0] <= 2):
    sys.exit("the third event is something else now")
calltree = open("calltree.callgrind").read()
if "\nevents: ns\n" not in "\n" + calltree:
    sys.exit("pyprof2calltree names another event now")
PY
