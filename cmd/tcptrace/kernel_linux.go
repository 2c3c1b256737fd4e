package main

import (
	"slices"

	"github.com/tcptrace/tcptrace/internal/advice"
	"github.com/tcptrace/tcptrace/internal/facts"
	"github.com/tcptrace/tcptrace/internal/netns"
	"github.com/tcptrace/tcptrace/internal/sysctl"
)

// kernelSpaces tells what the kernel tells of network namespaces, and what it told
// at the beginning of the trace.
type kernelSpaces struct {
	start map[uint32]sysctl.Values
	end   map[uint32]netns.NS // the namespaces when it was first asked; nil before
	// machine is what is the same for all, as far as tcptrace's own namespace has it.
	machine sysctl.Values
}

// newKernelSpaces reads the counters of the namespaces that are wanted; nil: of all.
func newKernelSpaces(wanted []uint32) *kernelSpaces {
	k := &kernelSpaces{start: make(map[uint32]sysctl.Values)}
	all, _ := netns.List() // without it, nothing is known
	for inode, ns := range all {
		if wanted != nil && !slices.Contains(wanted, inode) {
			continue
		}
		if v, ok := readKernel(ns, nil); ok {
			k.start[inode] = v
		}
	}
	return k
}

// of returns what a namespace has now; false where it is gone or not to be reached.
func (k *kernelSpaces) of(inode uint32) (facts.Kernel, bool) {
	if k.end == nil {
		k.end, _ = netns.List()
		k.machine = sysctl.Read("/proc", advice.MachineSysctls(), nil)
	}
	ns, ok := k.end[inode]
	if !ok {
		return facts.Kernel{}, false
	}
	end, ok := readKernel(ns, advice.Sysctls())
	for name, value := range k.machine.Sysctls {
		if _, own := end.Sysctls[name]; ok && !own {
			end.Sysctls[name] = value
		}
	}
	// A namespace that was made during the trace has no start: what its counters
	// grew by is unknown.
	return facts.Kernel{Name: ns.Name, Start: k.start[inode], End: end}, ok
}

func readKernel(ns netns.NS, sysctls []string) (v sysctl.Values, ok bool) {
	err := netns.Do(ns, func() error {
		v = sysctl.Read("/proc", sysctls, advice.Counters())
		return nil
	})
	return v, err == nil
}
