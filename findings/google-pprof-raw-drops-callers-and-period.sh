#!/usr/bin/env bash
# `google-pprof --raw` (gperftools) promises the profile with symbols in front, to be looked at elsewhere. What it writes is
# another profile: a caller that all leaves share is taken for the handler of the signal and cut out, and so is what then comes next,
# up to the root (said on standard error only); and the header's period becomes 1 µs, whatever it was. Who multiplies samples by the period gets a ten-thousandth of the time.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
apt-get download -qq google-perftools=2.10-1 2>/dev/null
dpkg -x google-perftools_2.10-1_all.deb root
echo 'google-perftools 2.10-1'
cat >write.py <<'PYTHON'
# The format as gperftools documents it: 0 3 0 period 0, then (samples, depth, addresses leaf first)*, then 0 1 0 and the maps.
import struct
stacks = [(30, [0x1010, 0x1100, 0x1200, 0x1300]), (70, [0x1020, 0x1100, 0x1200, 0x1300])]
words = [0, 3, 0, 10000, 0]
for samples, stack in stacks:
    words += [samples, len(stack), *stack]
words += [0, 1, 0]
with open("in.prof", "wb") as file:
    file.write(struct.pack(f"<{len(words)}Q", *words) + b"00001000-00002000 r-xp 00000000 00:00 0 /nowhere/shop\n")
PYTHON
cat >read.py <<'PYTHON'
import struct, sys
body = open(sys.argv[1], "rb").read()
body = body.split(b"--- profile\n", 1)[-1]
words = struct.unpack(f"<{len(body) // 8}Q", body[: len(body) // 8 * 8])
at, depths, samples = 5, [], 0
while at + 1 < len(words) and words[at] > 0:
    samples += words[at]
    depths.append(words[at + 1])
    at += 2 + words[at + 1]
print(f"period {words[3]} µs, {samples} samples, stacks of {sorted(depths)} frames")
PYTHON
python3 write.py
perl root/usr/bin/google-pprof --raw /bin/true in.prof >out.prof 2>log || true
before=$(python3 -c 'import sys; sys.argv=["", "in.prof"]; exec(open("read.py").read())')
after=$(python3 read.py out.prof)
echo "in:  $before"
echo "out: $after"
grep -c 'Removing .* from all stack traces' log || true
[ "$before" = 'period 10000 µs, 100 samples, stacks of [4, 4] frames' ]
[ "$after" = 'period 1 µs, 100 samples, stacks of [1, 1] frames' ]
