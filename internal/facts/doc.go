// Package facts owns what the advice goes by: it collects advice.Facts from the
// connection table's output, the connections that live at the end, the last look
// at the sockets, and what the kernel tells of each network namespace.
//
// Collector is an aggregate.Sink and has no clock and no I/O: what is read comes
// through Config. Its memory is bounded: when there are more processes or remotes
// than it keeps, those with the fewest failures are forgotten.
package facts
