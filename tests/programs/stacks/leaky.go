// As leaky.c, in Go. What requests took is given back to the kernel by the runtime when it is told to.
package main

import (
	"bufio"
	"fmt"
	"os"
	"runtime/debug"
	"time"
)

const (
	ticks       = 400
	restTicks   = 1000
	warmTicks   = 60
	leaked      = 120000
	cached      = 100000
	cachedATick = 10
	request     = 2 << 20
)

var ledger, cache [][]byte
var last []byte

//go:noinline
func filled(bytes int) []byte {
	block := make([]byte, bytes)
	for i := range block {
		block[i] = 'x'
	}
	return block
}

//go:noinline
func leak(bytes int) {
	ledger = append(ledger, filled(bytes))
}

//go:noinline
func warmCache() {
	for i := 0; i < cachedATick; i++ {
		cache = append(cache, filled(cached))
	}
}

//go:noinline
func serveRequest() {
	last = filled(request)
	last = nil
}

func main() {
	// What is collected is given back, and never used again before.
	debug.SetGCPercent(-1)
	bufio.NewReader(os.Stdin).ReadString('\n')
	for tick := 0; tick < ticks+restTicks; tick++ {
		serveRequest()
		if tick%8 == 0 {
			debug.FreeOSMemory()
		}
		if tick < warmTicks {
			warmCache()
		}
		if tick < ticks {
			leak(leaked)
		}
		if tick == ticks {
			fmt.Printf("{\"leaked\": %d, \"cached\": %d, \"touched\": %d}\n", ticks*leaked,
				warmTicks*cachedATick*cached, ticks*request)
		}
		time.Sleep(20 * time.Millisecond)
	}
	fmt.Println(len(ledger), len(cache))
}
