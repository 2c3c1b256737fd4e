package watch

import (
	"cmp"
	"slices"
)

// room is what Config.MaxSockets has cost.
type room struct {
	refused uint64 // how often a socket was not kept, or given up
	noIdle  bool   // no timewait socket was left when one was last looked for
	leftMax int    // of Store.left, before it is looked through
}

// Len returns how many sockets are kept.
func (s *Store) Len() int { return len(s.socks) }

// Refused returns how often a socket was not kept, or given up for another.
func (s *Store) Refused() uint64 { return s.room.refused }

// roomPart is the part of a full Store that is given up at once.
const roomPart = 32

// roomFor makes room for a socket. The sockets that have been there longest are what
// a watch is about: only those in TIME_WAIT give way, the oldest of them first.
func (s *Store) roomFor(timewait bool) bool {
	if s.cfg.MaxSockets == 0 || len(s.socks) < s.cfg.MaxSockets {
		return true
	}
	if timewait || s.room.noIdle {
		s.room.refused++
		return false
	}
	var idle []*entry
	for _, e := range s.socks {
		if e.timewait {
			idle = append(idle, e)
		}
	}
	if s.room.noIdle = len(idle) == 0; s.room.noIdle {
		s.room.refused++
		return false
	}
	slices.SortFunc(idle, func(a, b *entry) int { return cmp.Or(cmp.Compare(a.since, b.since), cmp.Compare(a.id, b.id)) })
	for _, e := range idle[:min(len(idle), max(s.cfg.MaxSockets/roomPart, 1))] {
		s.room.refused++
		delete(s.socks, e.sk)
		switch sp := s.spaces[e.netns]; {
		case sp == nil:
		case sp.scanning != 0 && e.seen >= sp.scanning:
			sp.refused++
		case sp.scanning == 0 && sp.scanned != 0 && e.seen >= sp.scanned:
			sp.untracked++
		}
	}
	return true
}

// leftLeast is how many sockets that left are remembered in any case.
const leftLeast = 1 << 12

// noteLeft remembers when a socket left, for as long as a walk can be in doubt.
func (s *Store) noteLeft(sk uint64, ts int64) {
	if len(s.left) >= max(s.room.leftMax, leftLeast) {
		for old, at := range s.left {
			if ts-at > graceNS {
				delete(s.left, old)
			}
		}
		s.room.leftMax = 2 * len(s.left)
	}
	s.left[sk] = ts
}
