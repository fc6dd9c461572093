#!/usr/bin/env bash
# In a file of Python's cProfile a function is (cc, nc, tt, ct, callers): primitive calls, then all calls. The same four numbers
# per caller are (nc, cc, tt, ct): all calls come first. The documentation names the order of neither; `pstats` itself knows.
# A reader that takes both alike shows recursive calls as the primitive ones exactly where recursion is.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 --version
python3 - "$work/profile" <<'PYTHON'
import cProfile, marshal, sys

def fib(n):
    return n if n < 2 else fib(n - 1) + fib(n - 2)

def main():
    fib(12)  # 465 calls, of which 1 is primitive

cProfile.run("main()", sys.argv[1])
stats = marshal.load(open(sys.argv[1], "rb"))
of = {key[2]: value for key, value in stats.items()}
function = of["fib"][:2]
callers = {key[2]: value[:2] for key, value in of["fib"][4].items()}
print("fib itself:        ", function, "(primitive, all)")
print("fib called by fib: ", callers["fib"], "(all, primitive)")
print("fib called by main:", callers["main"])
assert function == (1, 465), function
assert callers["fib"][0] == 464 and callers["fib"][1] < 464, callers
PYTHON
