//go:build linux

package tracer

import (
	"fmt"
	"sync"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/btf"

	"github.com/tcptrace/tcptrace/bpf"
)

// sources are what programs are loaded from: the BTF of the running kernel and the BPF
// object. To decode them is most of the price of a start: once is enough, however many
// tiers are tried.
type sources struct {
	kernel *btf.Cache
	object func() (*ebpf.CollectionSpec, error)
}

func newSources() *sources {
	return &sources{btf.NewCache(), sync.OnceValues(bpf.LoadTcptrace)}
}

// spec returns a copy of the object for the caller to change.
func (s *sources) spec() (*ebpf.CollectionSpec, error) {
	// Both take some milliseconds the first time.
	var kernel sync.WaitGroup
	kernel.Go(func() { _, _ = s.kernel.Kernel() }) // an error will come again
	spec, err := s.object()
	kernel.Wait()
	if err != nil {
		return nil, fmt.Errorf("read the BPF object: %w", err)
	}
	return spec.Copy(), nil
}
