// Package events owns the vocabulary of tcptrace: the TCP states, the records
// that the kernel side hands over (Record), what the connection table makes of
// them (Transition, Closed, Lost, ...), and their JSON lines, schema 1, in both
// directions.
//
// It does no I/O of its own and knows neither BPF nor a clock. Times are
// CLOCK_MONOTONIC nanoseconds, the clock of bpf_ktime_get_ns; Clock turns them
// into wall time at the edge.
package events
