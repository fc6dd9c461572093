// A Go service that knows what it costs: GET /quote/N burns CPU in parseRequest and priceBasket, GET /clock answers what
// its own CPU clock says of the latter. Arguments: port, milliseconds of priceBasket. Its profiles are scraped.
package main

import (
	"fmt"
	"net/http"
	_ "net/http/pprof"
	"os"
	"runtime"
	"strconv"
	"sync/atomic"
	"syscall"
)

var spent, requests int64

// CPU time of this thread, nanoseconds.
func threadTime() int64 {
	var usage syscall.Rusage
	_ = syscall.Getrusage(1, &usage)
	return usage.Utime.Nano() + usage.Stime.Nano()
}

//go:noinline
func parseRequest() (total int64) {
	for end := threadTime() + 2_000_000; threadTime() < end; {
		for i := int64(0); i < 20_000; i++ {
			total += i * i
		}
	}
	return total
}

//go:noinline
func priceBasket(milliseconds int64) (total int64) {
	began := threadTime()
	for end := began + milliseconds*1_000_000; threadTime() < end; {
		for i := int64(0); i < 20_000; i++ {
			total += i * i
		}
	}
	atomic.AddInt64(&spent, threadTime()-began)
	return total
}

func main() {
	cost, _ := strconv.ParseInt(os.Args[2], 10, 64)
	http.HandleFunc("/quote/", func(w http.ResponseWriter, _ *http.Request) {
		runtime.LockOSThread()
		total := parseRequest() + priceBasket(cost)
		runtime.UnlockOSThread()
		atomic.AddInt64(&requests, 1)
		fmt.Fprintf(w, "{\"total\":%d}", total)
	})
	http.HandleFunc("/clock", func(w http.ResponseWriter, _ *http.Request) {
		fmt.Fprintf(w, "{\"price_basket_ns\":%d,\"requests\":%d}", atomic.LoadInt64(&spent), atomic.LoadInt64(&requests))
	})
	fmt.Fprintln(os.Stderr, http.ListenAndServe("127.0.0.1:"+os.Args[1], nil))
	os.Exit(1)
}
