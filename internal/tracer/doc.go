// Package tracer owns the kernel side at run time: it chooses the hook tier by
// trial, loads and attaches the programs of package bpf, reads the ring, walks the
// sockets and descriptors that are there already, and hands everything over as one
// sequence of events.Record.
//
// Beside package bpf it is the only user of cilium/ebpf.
package tracer
