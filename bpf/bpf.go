// Package bpf holds the kernel side of tcptrace: C in this folder, compiled by
// bpf2go into the committed objects, and the Go types and loaders generated from
// them. It has no logic of its own; internal/tracer loads and attaches.
package bpf

//go:generate go tool bpf2go -go-package bpf -cc clang-19 -strip llvm-strip-19 -target amd64,arm64 -type record -type port_bits Tcptrace tcptrace.bpf.c -- -O2 -g -mcpu=v3 -Wall -Wextra -Werror -Wno-unused-parameter -Wno-missing-declarations -Wno-compare-distinct-pointer-types
