package facts

import (
	"cmp"
	"slices"
)

// bounded is a map of bounded size. When it is full, the half of its entries that
// weighs least is forgotten; what is forgotten follows from what was added, so that
// a replay forgets the same.
type bounded[K comparable, V any] struct {
	most    int
	weight  func(*V) int64
	entries map[K]*item[K, V]
	next    uint64
	last    *item[K, V]
}

type item[K comparable, V any] struct {
	key   K
	seq   uint64 // order of appearance
	value V
}

func newBounded[K comparable, V any](most int, weight func(*V) int64) *bounded[K, V] {
	return &bounded[K, V]{most: most, weight: weight, entries: make(map[K]*item[K, V])}
}

// at returns the value of k, a zero one where there is none yet.
func (b *bounded[K, V]) at(k K) *V {
	if b.last != nil && b.last.key == k { // connections come in bursts
		return &b.last.value
	}
	e := b.entries[k]
	if e == nil {
		if len(b.entries) >= b.most {
			for _, old := range b.list()[b.most/2:] {
				delete(b.entries, old.key)
			}
		}
		e = &item[K, V]{key: k, seq: b.next}
		b.next++
		b.entries[k] = e
	}
	b.last = e
	return &e.value
}

// list returns the entries, heaviest first, of the same weight the older first.
func (b *bounded[K, V]) list() []*item[K, V] {
	list := make([]*item[K, V], 0, len(b.entries))
	for _, e := range b.entries {
		list = append(list, e)
	}
	slices.SortFunc(list, func(x, y *item[K, V]) int {
		return cmp.Or(cmp.Compare(b.weight(&y.value), b.weight(&x.value)), cmp.Compare(x.seq, y.seq))
	})
	return list
}
