#!/usr/bin/env bash
# Searches for inputs that break a decoder, guided by coverage, and prints what it did. Called by `make fuzz`.
#   MINUTES=10 run.sh [target ...]      minutes in all, shared evenly; all targets when none is named
#   PROGRAMS=1                          also those of proxy, store, collector and pages (compiles all of them once more)
# New inputs stay in target/fuzz/; an input that fails is copied there as crash-*, and the script ends with 1.
set -euo pipefail
cd "$(dirname "$0")/libfuzzer"
work=$PWD/../../../target/fuzz
mkdir -p "$work"
# The versions that are tested are those that ship; what only the fuzzer needs is added.
cp ../../../Cargo.lock Cargo.lock
features=(); [ -z "${PROGRAMS:-}" ] || features=(--features programs)
CARGO_TARGET_DIR=$work/build cargo build --quiet --release "${features[@]}"
decoders=$work/build/x86_64-unknown-linux-gnu/release/decoders
targets=("$@")
[ ${#targets[@]} -gt 0 ] || read -ra targets <<<"$(FUZZ_TARGET='' "$decoders" 2>&1 | sed -n 's/.* is none of //p')"
seconds=$((${MINUTES:-10} * 60 / ${#targets[@]}))
[ "$seconds" -gt 0 ] || seconds=1
executions=0 failed=()
for target in "${targets[@]}"; do
    corpus=$work/corpus/$target log=$work/$target.log
    mkdir -p "$corpus" "../corpus/$target"
    status=0
    FUZZ_TARGET=$target FUZZ_SEEDS=$corpus "$decoders" "$corpus" "../corpus/$target" -max_total_time="$seconds" -max_len=32768 \
        -timeout=10 -rss_limit_mb=1024 -artifact_prefix="$work/$target-" -print_final_stats=1 >"$log" 2>&1 || status=$?
    rmdir --ignore-fail-on-non-empty "../corpus/$target"
    runs=$(sed -n 's/^stat::number_of_executed_units: *//p' "$log")
    edges=$(sed -n 's/.* cov: \([0-9]*\) .*/\1/p' "$log" | tail -1)
    printf '%-20s %10s executions %6s edges%s\n' "$target" "${runs:-0}" "${edges:-0}" "$([ $status = 0 ] || echo '  FAILED')"
    executions=$((executions + ${runs:-0}))
    [ $status = 0 ] || failed+=("$log")
done
echo "fuzz_executions $executions"
[ ${#failed[@]} = 0 ] || { echo "failed: ${failed[*]}" >&2; exit 1; }
