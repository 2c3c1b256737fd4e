package main

import (
	"fmt"
	"os"
	"runtime/debug"
	"strconv"
)

// Limits of the default of --max-connections, and of what can be given.
const (
	leastConns    = 1 << 16
	mostConns     = 1 << 24
	unknownConns  = 1 << 20 // where the memory is not known
	maxMaxConns   = 1 << 30
	connBytes     = 256  // for each connection, what the allocator keeps beside it included
	socketBytes   = 1024 // the same with --watch, the answer included
	connsPart     = 16   // part of the memory that connections may take
	heapPartIn4th = 3    // fourths of the memory at which garbage is collected at any cost
)

// defaultMaxConns returns how many connections are tracked on a machine, or in a
// container, of so many bytes of memory (0: not known), if each takes size.
func defaultMaxConns(memory, size uint64) int {
	if memory == 0 {
		return unknownConns
	}
	return int(min(max(memory/connsPart/size, leastConns), mostConns))
}

// limitConns settles --max-connections: as given, as recorded, or as this machine
// has memory for.
func (opt *options) limitConns(recorded string) error {
	if opt.maxConns == 0 && recorded != "" {
		n, err := strconv.ParseUint(recorded, 10, 31)
		if err != nil || n == 0 || n > maxMaxConns {
			return fmt.Errorf("the limit of connections in the recording: %q is no number of them", recorded)
		}
		opt.maxConns = int(n)
	}
	if opt.maxConns == 0 {
		size := uint64(connBytes)
		if opt.watch != 0 || opt.failOn != nil {
			size = socketBytes
		}
		opt.maxConns = defaultMaxConns(memoryAvailable(), size)
	}
	return nil
}

// limitHeap makes the garbage collector work harder rather than let the process be
// killed where there is little memory, as in a container. GOMEMLIMIT comes first.
func limitHeap() {
	if memory := memoryAvailable(); memory > 0 && os.Getenv("GOMEMLIMIT") == "" {
		debug.SetMemoryLimit(int64(memory / 4 * heapPartIn4th))
	}
}
