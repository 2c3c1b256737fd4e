package account

import (
	"cmp"
	"slices"
)

// fold is a map of bounded size. When it is full, the half of its entries that
// weighs least is handed to drop and forgotten: what comes often stays. An entry
// that comes back begins anew, so that its counts are lower bounds from then on
// (Folded).
//
// Which entries are dropped follows from what was added and in what order, so that
// a replay has the same.
type fold[K comparable, V any] struct {
	max    int
	weight func(*V) uint64
	drop   func(*V)
	folded uint64 // entries that were dropped

	entries map[K]*entry[K, V]
	next    uint64
	last    *entry[K, V]
}

type entry[K comparable, V any] struct {
	key   K
	seq   uint64 // the order of the first appearance
	value V
}

func newFold[K comparable, V any](limit int, weight func(*V) uint64, drop func(*V)) *fold[K, V] {
	return &fold[K, V]{max: limit, weight: weight, drop: drop, entries: make(map[K]*entry[K, V])}
}

// at returns the value of k, a zero one if there is none yet.
func (f *fold[K, V]) at(k K) *V {
	// Connections come in bursts of one process.
	if f.last != nil && f.last.key == k {
		return &f.last.value
	}
	e := f.entries[k]
	if e == nil {
		if len(f.entries) >= f.max {
			f.shrink()
		}
		e = &entry[K, V]{key: k, seq: f.next}
		f.next++
		f.entries[k] = e
	}
	f.last = e
	return &e.value
}

// list returns the entries, heaviest first; of the same weight the older first.
func (f *fold[K, V]) list() []*entry[K, V] {
	list := make([]*entry[K, V], 0, len(f.entries))
	for _, e := range f.entries {
		list = append(list, e)
	}
	slices.SortFunc(list, func(a, b *entry[K, V]) int {
		return cmp.Or(cmp.Compare(f.weight(&b.value), f.weight(&a.value)), cmp.Compare(a.seq, b.seq))
	})
	return list
}

func (f *fold[K, V]) shrink() {
	list := f.list()
	for _, e := range list[f.max/2:] {
		f.drop(&e.value)
		delete(f.entries, e.key)
		f.folded++
	}
	f.last = nil
}
