#!/usr/bin/env bash
# What the collapsed stacks of LuaJIT's own profiler (`-jp=G`) call the code that is not Lua.
#
# A good guess: `[C]`, as Lua's tracebacks and `debug.getinfo` have it, or the name of the library. Seen (LuaJIT 2.1.0-beta3,
# Debian 12): `@0x` and the address of the C function in this process. The interpreter's own entry is one, so it is the root of
# every stack, and with addresses that are drawn anew for each process no two runs have one stack in common: laid over each other,
# two releases differ in everything, down from the root.
#
# Emberline reads such frames as `[C]` (`model/src/formats/text_frame.rs`).
#
# Needs apt-get and dpkg of Debian 12. Exits with 1 when LuaJIT behaves otherwise.
set -euo pipefail
version='2.1.0~beta3+git20220320+dfsg-4.1+deb12u1'
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
apt-get download "luajit=$version" "libluajit-5.1-2=$version" "libluajit-5.1-common=$version" >/dev/null 2>&1
for package in *.deb; do dpkg -x "$package" root; done
export LD_LIBRARY_PATH=$PWD/root/usr/lib/x86_64-linux-gnu
export LUA_PATH="$PWD/root/usr/share/luajit-2.1.0-beta3/?.lua;;"
cat >shop.lua <<'LUA'
local function price(count)
  local sum = 0
  for number = 1, count do sum = sum + number % 7 end
  return sum
end
local function main()
  for _ = 1, 20 do price(5e6) end
end
main()
LUA
root/usr/bin/luajit -v
for run in 1 2; do
  root/usr/bin/luajit -joff -jp=G shop.lua >"$run"
  cat "$run"
  grep -Eq '^@0x[0-9a-f]+;shop\.lua:0;main;price [0-9]+$' "$run"
done
same=$(comm -12 <(sed 's/ [0-9]*$//' 1 | sort) <(sed 's/ [0-9]*$//' 2 | sort) | wc -l)
echo "stacks that both runs have: $same"
[ "$same" = 0 ]
