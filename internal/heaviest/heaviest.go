// Package heaviest keeps of very many things those that matter most: a map of bounded
// size that forgets what weighs least. internal/account and internal/facts count by
// keys that processes and peers choose, and must not grow with them.
//
// It imports nothing of the module.
package heaviest

import (
	"cmp"
	"slices"
)

// Map is a map of bounded size. When it is full, the half of its entries that weighs
// least is handed to drop and forgotten: what comes often stays. An entry that comes
// back begins anew, so that its counts are lower bounds from then on (Forgotten).
//
// Which entries are forgotten follows from what was added and in what order, so that
// a replay forgets the same. Not safe for concurrent use.
type Map[K comparable, V any] struct {
	limit     int
	weight    func(*V) int64
	drop      func(*V)
	forgotten uint64
	entries   map[K]*Entry[K, V]
	next      uint64
	// The two that were asked for last: connections come in bursts of two ends.
	last, before *Entry[K, V]
}

// Entry is what a Map has of one key.
type Entry[K comparable, V any] struct {
	Key   K
	Value V
	seq   uint64 // the order of the first appearance
}

// New returns an empty Map of at most limit entries, 2 or more. drop may be nil.
func New[K comparable, V any](limit int, weight func(*V) int64, drop func(*V)) *Map[K, V] {
	return &Map[K, V]{limit: limit, weight: weight, drop: drop, entries: make(map[K]*Entry[K, V])}
}

// At returns the value of k, a zero one if there is none yet. It is valid until the next
// call.
func (m *Map[K, V]) At(k K) *V {
	if m.last != nil && m.last.Key == k {
		return &m.last.Value
	}
	e := m.before
	if e == nil || e.Key != k {
		e = m.entries[k]
	}
	if e == nil {
		if len(m.entries) >= m.limit {
			m.shrink()
		}
		e = &Entry[K, V]{Key: k, seq: m.next}
		m.next++
		m.entries[k] = e
	}
	m.last, m.before = e, m.last
	return &e.Value
}

// Forgotten returns how many entries were.
func (m *Map[K, V]) Forgotten() uint64 { return m.forgotten }

// List returns the entries, heaviest first; of the same weight the older first.
func (m *Map[K, V]) List() []*Entry[K, V] {
	list := make([]*Entry[K, V], 0, len(m.entries))
	for _, e := range m.entries {
		list = append(list, e)
	}
	slices.SortFunc(list, func(a, b *Entry[K, V]) int {
		return cmp.Or(cmp.Compare(m.weight(&b.Value), m.weight(&a.Value)), cmp.Compare(a.seq, b.seq))
	})
	return list
}

func (m *Map[K, V]) shrink() {
	for _, e := range m.List()[m.limit/2:] {
		if m.drop != nil {
			m.drop(&e.Value)
		}
		delete(m.entries, e.Key)
		m.forgotten++
	}
	m.last, m.before = nil, nil
}
