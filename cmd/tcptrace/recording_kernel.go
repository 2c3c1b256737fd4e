package main

import (
	"maps"
	"slices"

	"github.com/tcptrace/tcptrace/internal/facts"
	"github.com/tcptrace/tcptrace/internal/sysctl"
	"github.com/tcptrace/tcptrace/internal/watch"
)

// Topics of facts about network namespaces, by inode, in a recording.
const (
	topicKernelName  = "kernel.name"  // under /run/netns; there where the others are
	topicKernelStart = "kernel.start" // sysctl.Values at the beginning
	topicKernelEnd   = "kernel.end"   // and at the end
)

// namespaces asks about each namespace in which anything was: an account that is
// made of the recording will.
func (rec *recording) namespaces(kernel func(netns uint32) (facts.Kernel, bool), ports func(netns uint32) (watch.PortRange, bool)) {
	for _, netns := range slices.Sorted(maps.Keys(rec.spaces)) {
		kernel(netns)
		ports(netns)
	}
}

// kernel records what of tells.
func (rec *recording) kernel(of func(netns uint32) (facts.Kernel, bool)) func(netns uint32) (facts.Kernel, bool) {
	return func(netns uint32) (facts.Kernel, bool) {
		k, ok := of(netns)
		if ok {
			rec.Fact(topicKernelName, uint64(netns), k.Name)
			rec.Fact(topicKernelStart, uint64(netns), k.Start.Encode())
			rec.Fact(topicKernelEnd, uint64(netns), k.End.Encode())
		}
		return k, ok
	}
}

// kernel answers from the recording.
func (r *replayedProcesses) kernel(netns uint32) (facts.Kernel, bool) {
	name, ok := r.p.Facts().Get(topicKernelName, uint64(netns))
	if !ok {
		return facts.Kernel{}, false
	}
	k := facts.Kernel{Name: name}
	for topic, to := range map[string]*sysctl.Values{topicKernelStart: &k.Start, topicKernelEnd: &k.End} {
		text, ok := r.p.Facts().Get(topic, uint64(netns))
		if !ok {
			continue // the recording has forgotten it
		}
		v, err := sysctl.Decode(text)
		if err != nil {
			r.err = err
			return facts.Kernel{}, false
		}
		*to = v
	}
	return k, true
}
