#!/usr/bin/env bash
# Writes symbols.tsv: names that real compilers and runtimes give the same functions in two builds of one program.
# Columns: language, source function, then name and file of the first build and of the second one. Between the builds
# everything moves that moves between releases: the folder, the lines, the optimiser's decisions, counters, addresses.
#
#     model/tests/names/generate.sh         (gcc, g++, rustc, go, java, node, python3, ruby, php on the path)
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 "$here/programs.py" "$work"
for build in 1 2; do
    at="$work/build-$build"
    # C and C++: other flags, so that other clones come into being; the second as a disassembler shows it.
    flags=(-O2)
    if [[ $build = 2 ]]; then flags=(-O3 -fno-inline-small-functions -fno-ipa-sra); fi
    gcc -g0 "${flags[@]}" -o "$at/c/program" "$at"/c/*.c
    nm "$at/c/program" | awk '$2 ~ /[tTwW]/ {print $3}' > "$at/c.names"
    g++ -g0 "${flags[@]}" -o "$at/cxx/program" "$at"/cxx/*.cc
    demangled=()
    if [[ $build = 2 ]]; then demangled=(-C); fi
    nm "${demangled[@]}" "$at/cxx/program" | awk '$2 ~ /[tTwW]/ {sub(/^[^ ]+ . /, ""); print}' > "$at/cxx.names"
    # Rust: legacy names and v0.
    for mangling in legacy v0; do
        RUSTC_BOOTSTRAP=1 rustc --edition 2024 -O -Z unstable-options -C symbol-mangling-version=$mangling -C codegen-units=$((build * 4)) \
            -C metadata=build-$build -A warnings --crate-name shop -o "$at/rust-$mangling" "$at/rust/main.rs"
        nm "$at/rust-$mangling" | awk '$2 ~ /[tT]/ {print $3}' > "$at/rust-$mangling.names"
    done
    (cd "$at/go" && GOFLAGS=-mod=mod GO111MODULE=on GOCACHE="$work/go-cache" go build -o ../go-program . && GOCACHE="$work/go-cache" go tool nm ../go-program) |
        awk '$2 ~ /[tT]/ {$1=$2=""; sub(/^ +/, ""); print}' > "$at/go.names"
    (cd "$at/java" && javac -d classes *.java && java -Xint -cp classes shop.Main) > "$at/java.names"
    (cd "$at/js"; node --cpu-prof --cpu-prof-interval 100 --cpu-prof-name profile.json --perf-basic-prof main.js & pid=$!
        wait $pid; mv "/tmp/perf-$pid.map" perf.map)
    python3 "$at/python/list.py" > "$at/python.names"
    ruby "$at/ruby/main.rb" > "$at/ruby.names"
    php "$at/php/main.php" > "$at/php.names"
done
python3 "$here/pairs.py" "$work" > "$here/symbols.tsv"
cut -f1 "$here/symbols.tsv" | uniq -c

