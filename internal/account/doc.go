// Package account owns the account of a trace (--summary): how long connections
// stayed in each state, who closed first and how, what became of the TIME_WAITs, by
// process, remote endpoint, local port, cgroup or network namespace.
//
// Account is an aggregate.Sink: a pure function of what the connection table says.
// It has no clock and no I/O, and its memory is bounded whatever the trace brings:
// groups and tallies beyond a limit are folded into one that is counted and shown
// (fold), durations are kept in histograms of a fixed error (ErrorPercent) that can
// be merged.
//
// What is not exact is not mixed with what is. A stay whose beginning nobody saw is
// a lower bound: it is counted (AtLeast) and in no quantile. One whose end lies
// between two walks (--hooks poll) is in the quantiles and counted (Approx).
package account
