package aggregate

import (
	"github.com/tcptrace/tcptrace/internal/events"
)

// pending is a connection whose full socket has closed in a way that fits the
// beginning of a timewait socket, while nothing has shown that socket yet.
//
// Without hooks that is how every TIME_WAIT begins: a walk shows it, or that it is
// not there. With hooks a timewait socket is told before, so that there is none,
// unless the record of it was lost, which is known at the next tick. But nothing
// else follows on the peer's FIN in FIN_WAIT2: then its end will tell.
type pending struct {
	conn    uint32 // 0: decided
	ts      int64  // of the transition to CLOSE
	end     ending // what it was if there was no timewait socket
	fin     bool   // the peer's FIN had come: TIME_WAIT; else FIN_WAIT2
	abort   bool   // fits a local abort as well
	limbo   bool   // its address is another's, and its close was not seen
	doubt   bool   // nothing is known to be lost: the next tick decides
	certain certainty
}

// maxPendingNS is how long a pending connection waits for a walk of its namespace.
// No TIME_WAIT lasts longer but for the slack of the timer wheel.
const maxPendingNS = timeWaitNS + 5_000_000_000

// mayBeTimeWait says whether X -> CLOSE fits the beginning of a timewait socket
// (tcp_time_wait, which closes the full one by tcp_done): in TIME_WAIT when the
// peer's FIN has come, in FIN_WAIT2 when the socket is an orphan and it has not.
func mayBeTimeWait(r *events.Record) bool {
	if r.Err != 0 {
		return false
	}
	switch r.Old {
	case events.Closing:
		return true
	case events.FinWait2:
		return r.Flags&(events.FlagFINReceived|events.FlagOrphan) != 0
	case events.FinWait1:
		return r.Flags&events.FlagFINReceived != 0
	}
	return false
}

// pend takes the close of a full socket that may live on as a timewait socket.
func (t *Table) pend(i uint32, c *conn, r *events.Record, certain certainty, e ending) {
	t.wait(i, c, pending{
		conn:    i,
		ts:      r.TS,
		end:     e,
		fin:     r.Old == events.Closing || r.Flags&events.FlagFINReceived != 0,
		abort:   r.Old == events.Closing && r.Flags&events.FlagLocked != 0 && e.reset != events.ResetOther,
		doubt:   t.doubts(r.Old, r.Flags&events.FlagFINReceived != 0),
		certain: certain,
	})
}

// doubts says whether a full socket that closed in state s, the peer's FIN having come
// or not, most likely had no timewait socket where none was told of.
func (t *Table) doubts(s events.State, fin bool) bool {
	return t.cfg.Hooks == HooksFull && mayBeAbort(s, fin)
}

// mayBeAbort says whether s -> CLOSE may be the end, too: nothing but TIME_WAIT follows
// on the peer's FIN in FIN_WAIT2.
func mayBeAbort(s events.State, fin bool) bool { return s != events.FinWait2 || !fin }

// doubtPending leaves what closed while the walk was under way, which made up for a
// loss, to the next tick: no other walk need follow. Should something be known to be
// lost by then, another one does (lost).
func (t *Table) doubtPending() {
	for n := range t.pending {
		if p := &t.pending[n]; p.conn != 0 {
			p.doubt = p.limbo || t.doubts(t.slab.at(p.conn).state, p.fin)
		}
	}
}

// wait takes c out of the index, its address being free, and waits for what tells.
func (t *Table) wait(i uint32, c *conn, p pending) {
	key := t.tuple(c)
	if older, ok := t.waiting[key]; ok && older != i {
		// The same addresses and ports twice: this connection could open only
		// because the other's TIME_WAIT had ended.
		t.endEarly(older, c.first, events.TimeWaitReused)
	}
	t.unlink(c)
	c.clear(isBorn)
	c.set(isPending)
	c.aux = uint32(len(t.pending))
	t.space(c).pending++
	t.pending = append(t.pending, p)
	t.waiting[key] = i
	if j := t.bornAs(c); j != 0 {
		// The walk under way has met the timewait socket before this record was
		// written.
		b := t.slab.at(j)
		sk, met := b.sk, metAs(b)
		t.dropBorn(j)
		t.confirm(i, sk, met)
	}
}

// bornAs returns the timewait socket that the walk under way has met in the place of
// c, or 0.
func (t *Table) bornAs(c *conn) uint32 {
	if len(t.born) == 0 {
		return 0
	}
	j := t.born[t.tuple(c)]
	if j == 0 {
		return 0
	}
	b := t.slab.at(j)
	if !b.has(isBorn) || !b.has(isTimeWait) || !sameCookie(b.cookie, c.cookie) || t.tuple(b) != t.tuple(c) || b.entered < c.first {
		return 0
	}
	return j
}

func sameCookie(a, b uint64) bool { return a == 0 || b == 0 || a == b }

// unpend forgets that c waits.
func (t *Table) unpend(c *conn) {
	p := &t.pending[c.aux]
	if key := t.tuple(c); t.waiting[key] == p.conn {
		delete(t.waiting, key)
	}
	t.space(c).pending--
	p.conn = 0
	c.aux = 0
	c.clear(isPending)
}

// compactPending drops the decided ones and keeps the order.
func (t *Table) compactPending() {
	kept := t.pending[:0]
	for _, p := range t.pending {
		if p.conn == 0 {
			continue
		}
		t.slab.at(p.conn).aux = uint32(len(kept))
		kept = append(kept, p)
	}
	t.pending = kept
}

// eachPending calls f with those that match, and forgets the decided ones.
func (t *Table) eachPending(match func(*pending) bool, f func(i uint32, p pending)) {
	for n := 0; n < len(t.pending); n++ {
		if p := &t.pending[n]; p.conn != 0 && match(p) {
			f(p.conn, *p)
		}
	}
	t.compactPending()
}

// pendingOf returns the pending connection to which a timewait socket belongs, or 0.
func (t *Table) pendingOf(r *events.Record) uint32 {
	if len(t.waiting) == 0 {
		return 0
	}
	i := t.waiting[tupleOf(r)]
	if i == 0 || !sameCookie(t.slab.at(i).cookie, r.Cookie) {
		return 0
	}
	return i
}

// met is a timewait socket as something has shown it.
type met struct {
	state   events.State
	began   int64 // state was entered then, or earlier
	exact   bool  // right then: a TIME_WAIT sets its timer to 60 s
	expires int64 // or events.Unknown
}

func metAs(b *conn) met { return met{b.state, b.entered, b.has(startKnown), b.expires()} }

// confirm lets a pending connection live on as the timewait socket at sk.
func (t *Table) confirm(i uint32, sk uint64, m met) {
	c := t.slab.at(i)
	p := t.pending[c.aux]
	t.unpend(c)
	if p.limbo {
		t.takeOver(i, c, sk, m, !p.doubt)
		return
	}
	if t.cfg.Hooks != HooksPoll {
		t.unseen() // its beginning
	}
	t.link(i, c, sk)
	c.set(isTimeWait)
	switch {
	case m.state == events.TimeWait && p.fin:
		t.move(c, p.ts, events.TimeWait, 0, p.certain, 0)
	case m.state == events.TimeWait:
		t.move(c, max(m.began, p.ts), events.TimeWait, 0, p.certain, 0)
	case c.state != events.FinWait2:
		t.mend(c, events.FinWait2)
	}
	if m.expires != events.Unknown {
		c.setExpires(m.expires)
	}
}

// takeOver lets c live on as the timewait socket at sk, of which the records in
// between were not seen: explained says that a loss that is told of explains it.
func (t *Table) takeOver(i uint32, c *conn, sk uint64, m met, explained bool) {
	t.unlink(c)
	t.link(i, c, sk)
	if c.state != m.state {
		if explained {
			t.stats.Mismatches++
		} else {
			t.unseen()
		}
		if c.closer == events.SideNone {
			c.closer = closerBy(m.state)
		}
		c.clear(startKnown)
		c.entered = events.Unknown
		t.move(c, m.began, m.state, 0, mended, 0)
		if !m.exact {
			c.clear(startKnown)
		}
	}
	c.set(isTimeWait)
	if m.expires != events.Unknown {
		c.setExpires(m.expires)
	}
}

// resolveLimbo: it is gone.
func (t *Table) resolveLimbo(i uint32, p pending) {
	t.unpend(t.slab.at(i))
	if t.loss.due {
		t.loss.removed++
	}
	t.remove(i, p.ts)
}

// resolveAbort: there was no timewait socket, and the close itself was the end.
func (t *Table) resolveAbort(i uint32, p pending) {
	if p.limbo {
		t.resolveLimbo(i, p)
		return
	}
	t.unpend(t.slab.at(i))
	t.finishAt(i, p.ts, p.certain, p.end)
}

// endEarly: the timewait socket was there, and gone again before ts, when its timer
// had not run out.
func (t *Table) endEarly(i uint32, ts int64, why events.TimeWaitEnd) {
	c := t.slab.at(i)
	p := t.pending[c.aux]
	if p.limbo || p.abort && why == events.TimeWaitUnknown {
		t.resolveAbort(i, p)
		return
	}
	t.unpend(c)
	c.set(isTimeWait)
	if p.fin {
		t.move(c, p.ts, events.TimeWait, 0, p.certain, 0)
	}
	t.endUnseen(i, max(ts, p.ts), why)
}

// resolveUnsure: whether there was a timewait socket cannot be told. The state was
// left, and there is nothing now.
func (t *Table) resolveUnsure(i uint32, p pending) {
	if p.limbo {
		t.resolveLimbo(i, p)
		return
	}
	t.unpend(t.slab.at(i))
	e := ending{how: events.HowUnknown}
	if p.fin {
		e = ending{how: events.HowFIN, timeWait: events.TimeWaitUnknown}
	}
	t.finishAt(i, p.ts, loose, e)
}

// resolvePending decides, after a complete walk of ns, about those that closed
// before it began and are not in it. Either there was no room for a timewait
// socket, which the kernel counts (TCPTimeWaitOverflow), or it ended early.
func (t *Table) resolvePending(ns *namespace, count int64) {
	if ns.pending == 0 {
		ns.overflows = 0
		return
	}
	unmet := func(p *pending) bool {
		return p.ts <= ns.begin && !p.doubt && t.space(t.slab.at(p.conn)) == ns
	}
	missing := func(p *pending) bool { return !p.limbo && unmet(p) }
	t.eachPending(func(p *pending) bool { return p.limbo && unmet(p) }, t.resolveLimbo)
	if t.cfg.Hooks == HooksKprobe && !t.loss.due {
		// An attempt to make one would have been told.
		t.eachPending(func(p *pending) bool { return missing(p) && mayBeAbort(t.slab.at(p.conn).state, p.fin) }, t.resolveAbort)
	}
	var n int64
	for k := range t.pending {
		if p := &t.pending[k]; p.conn != 0 && missing(p) {
			n++
		}
	}
	known := count >= 0 && ns.overflows >= 0
	room := ns.overflows + count
	switch {
	case n == 0:
	case known && room == 0:
		younger := t.findYounger(func(need map[tuple]youngest) {
			for k := range t.pending {
				if p := &t.pending[k]; p.conn != 0 && missing(p) {
					c := t.slab.at(p.conn)
					need[t.tuple(c)] = youngest{older: c.id}
				}
			}
		})
		t.eachPending(missing, func(i uint32, _ pending) {
			ts, why := ns.begin, events.TimeWaitUnknown
			if y := younger[t.tuple(t.slab.at(i))]; y.id != 0 {
				ts, why = y.first, events.TimeWaitReused
			}
			t.endEarly(i, ts, why)
		})
	case known && room >= n:
		room -= n
		t.eachPending(missing, func(i uint32, p pending) {
			t.unpend(t.slab.at(i))
			t.finishAt(i, p.ts, p.certain, overflowed(p.fin))
		})
	default:
		room = 0
		t.eachPending(missing, t.resolveUnsure)
	}
	// What was counted may belong to connections that closed during the walk.
	ns.overflows = 0
	if ns.pending > 0 {
		ns.overflows = room
		if !known {
			ns.overflows = -1
		}
	}
}

// youngest is the first connection after another one with its addresses and ports.
type youngest struct {
	older uint64 // id of the other
	id    uint64
	first int64
}

// findYounger looks in the whole table for the connections that took over addresses
// and ports. It is asked only when a timewait socket ended early.
func (t *Table) findYounger(fill func(map[tuple]youngest)) map[tuple]youngest {
	need := make(map[tuple]youngest)
	fill(need)
	if len(need) == 0 {
		return need
	}
	t.slab.each(func(_ uint32, c *conn) bool {
		key := t.tuple(c)
		if y, ok := need[key]; ok && c.id > y.older && (y.id == 0 || c.id < y.id) {
			y.id, y.first = c.id, c.first
			need[key] = y
		}
		return true
	})
	return need
}

// tick takes the time: no older record will follow, and what was lost until then is
// known.
func (t *Table) tick(r *events.Record) {
	t.tellUnseen()
	t.loss.whole = r.TS
	if len(t.pending) > 0 {
		t.eachPending(func(p *pending) bool { return p.doubt && p.ts <= r.TS }, t.resolveAbort)
		t.eachPending(func(p *pending) bool { return r.TS-p.ts > maxPendingNS }, func(i uint32, p pending) {
			if p.fin {
				t.endEarly(i, p.ts+timeWaitNS, events.TimeWaitUnknown)
				return
			}
			t.resolveUnsure(i, p)
		})
	}
	for n := 0; n < len(t.held); {
		i := t.held[n]
		c := t.slab.at(i)
		switch {
		case r.TS-c.entered < maxHeldNS && !(c.has(isUnmet) && r.TS-c.entered > heldGraceNS):
			n++
		case c.state == events.SynSent && t.cfg.Hooks == HooksPoll:
			// It sends SYNs that nobody answers, and no walk came by.
			t.release(c)
		default:
			// With hooks the record to come follows within microseconds, unless
			// the kernel side's filter found, once it could, that the
			// connection is not wanted.
			t.drop(i)
		}
	}
	t.pruneSpaces()
	t.tellLimit(r.TS)
}

// maxHeldNS is how long a first transition waits for an identity.
const maxHeldNS = 3_000_000_000
