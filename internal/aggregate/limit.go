package aggregate

import (
	"math"

	"github.com/tcptrace/tcptrace/internal/events"
)

// limit is what Config.MaxConns has cost so far.
type limit struct {
	forgotten uint64 // in all
	told      uint64 // of forgotten, in the last events.Limit
	toldOut   uint64 // untracked, in the last events.Limit
	noIdle    bool   // nothing idle was left when it was last looked for
}

// forgetPart is the part of a full table that is forgotten at once: looking for the
// oldest takes passes over the whole table, which are shared by as many newcomers.
const forgetPart = 32

func (t *Table) full() bool { return t.cfg.MaxConns > 0 && t.live >= t.cfg.MaxConns }

// makeRoom forgets the connections that are missed least: those that are over but
// for their TIME_WAIT, the oldest first, then those that have been known longest.
// Listeners, of which there are few, go last.
func (t *Table) makeRoom() {
	n := max(t.cfg.MaxConns/forgetPart, 1)
	if n -= t.forgetIdle(n); n > 0 {
		n -= t.forgetOldest(n, func(c *conn) (int64, bool) {
			return int64(c.id), !idle(c) && c.state != events.Listen
		})
	}
	if n > 0 && t.full() {
		t.forgetOldest(n, func(c *conn) (int64, bool) { return int64(c.id), c.state == events.Listen })
	}
}

// roomFor makes room for a socket that a walk has met, if that costs only what is
// idle: the next walk meets again what this one pushes out.
func (t *Table) roomFor(timeWait bool) bool {
	if !t.full() {
		return true
	}
	if timeWait || t.limit.noIdle {
		return false
	}
	t.limit.noIdle = t.forgetIdle(max(t.cfg.MaxConns/forgetPart, 1)) == 0
	return !t.limit.noIdle
}

func idle(c *conn) bool { return c.has(isTimeWait | isPending) }

func (t *Table) forgetIdle(n int) int {
	return t.forgetOldest(n, func(c *conn) (int64, bool) { return max(c.entered, c.first), idle(c) })
}

// forgetOldest forgets n connections with the least age key, or all that have one,
// and returns how many. It takes no memory: the keys are counted in ranges, and the
// oldest are told to within one.
func (t *Table) forgetOldest(n int, key func(*conn) (int64, bool)) int {
	least, most, have := int64(math.MaxInt64), int64(math.MinInt64), 0
	t.slab.each(func(_ uint32, c *conn) bool {
		if k, ok := key(c); ok {
			least, most = min(least, k), max(most, k)
			have++
		}
		return true
	})
	if have == 0 {
		return 0
	}
	const ranges = 1024
	width := (most-least)/ranges + 1
	border := int64(ranges) // all below are forgotten
	spare := 0              // of the range at the border, so many are
	if have > n {
		var counts [ranges]int
		t.slab.each(func(_ uint32, c *conn) bool {
			if k, ok := key(c); ok {
				counts[(k-least)/width]++
			}
			return true
		})
		for border, spare = 0, n; counts[border] <= spare; border++ {
			spare -= counts[border]
		}
	}
	forgotten := 0
	t.slab.each(func(i uint32, c *conn) bool {
		k, ok := key(c)
		if !ok {
			return true
		}
		switch at := (k - least) / width; {
		case at > border, at == border && spare == 0:
			return true
		case at == border:
			spare--
		}
		t.drop(i)
		forgotten++
		return true
	})
	t.limit.forgotten += uint64(forgotten)
	return forgotten
}

// untracked returns how many sockets the last walks met for which there was no room.
func (t *Table) untracked() uint64 {
	var n uint64
	for _, ns := range t.spaces {
		n += ns.untracked
	}
	return n
}

// tellLimit tells what was forgotten since the last time.
func (t *Table) tellLimit(ts int64) {
	l := &t.limit
	l.noIdle = false
	out := t.untracked()
	if l.forgotten == l.told && out == l.toldOut {
		return
	}
	told := events.Limit{
		TS: ts, Max: uint64(t.cfg.MaxConns), Count: l.forgotten - l.told, Total: l.forgotten, Untracked: out,
	}
	l.told, l.toldOut = l.forgotten, out
	t.sink.Limit(&told)
}

// pruneSpaces forgets the namespaces that no walk has met and no connection is in:
// those that walks have met end with a walk.
func (t *Table) pruneSpaces() {
	for inode, ns := range t.spaces {
		if ns.walk == 0 && !ns.open && ns.unused() {
			delete(t.spaces, inode)
		}
	}
}
