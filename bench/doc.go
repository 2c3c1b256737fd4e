// Command bench measures what tcptrace costs, beside its peers, in one run on one
// machine: `make bench`. docs/performance.md has its figures and how to read them.
//
// Everything happens in a mount namespace of its own, each part in a new network
// namespace. The load opens and closes connections over loopback as fast as the
// machine can and knows how many transitions that made; runs with and without a
// tracer alternate, and a ratio is always that of two neighbouring runs.
//
//	bench [-run REGEXP] [-tools REGEXP] [-pairs N] [-seconds S] [-out DIR] PATH-OF-TCPTRACE
//
// The parts: throughput (with loss, CPU and memory), kernel-time, first-answer,
// quiet, growth. Results go to stdout as a table and to DIR as text, JSON and SVG.
package main
