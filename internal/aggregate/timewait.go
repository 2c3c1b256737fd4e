package aggregate

import (
	"github.com/tcptrace/tcptrace/internal/events"
)

const (
	// timeWaitNS is TCP_TIMEWAIT_LEN (include/net/tcp.h).
	timeWaitNS = 60_000_000_000
	// jiffyNS is the longest jiffy (HZ=100): timers are known to that.
	jiffyNS = 10_000_000
)

// moved is a full socket that a timewait socket has replaced, and that tcp_done is
// about to close: that transition is none.
type moved struct{ from, to uint64 }

// maxMoved bounds what is left of lost records. One is open for each CPU at most,
// for microseconds.
const maxMoved = 1024

// forgetMoved drops what was expected of an address that has a new socket now.
func (t *Table) forgetMoved(sk uint64) {
	for n := range t.moved {
		if t.moved[n].from == sk {
			t.moved = append(t.moved[:n], t.moved[n+1:]...)
			return
		}
	}
}

// closeMoved takes the X -> CLOSE of a socket that lives on as a timewait socket.
func (t *Table) closeMoved(r *events.Record) bool {
	for n := range t.moved {
		m := t.moved[n]
		if m.from != r.SK {
			continue
		}
		t.moved = append(t.moved[:n], t.moved[n+1:]...)
		i := t.find(m.to)
		if i == 0 {
			return true
		}
		c := t.slab.at(i)
		if c.cookie != 0 && r.Cookie != 0 && c.cookie != r.Cookie {
			return false
		}
		t.absorbOrigin(c, r)
		if c.has(needsOld) {
			c.clear(needsOld)
			if c.closer == events.SideNone || c.closer == events.SideUnknown {
				c.closer = closerBy(r.Old)
			}
			if r.Old != c.state {
				c.leave(r.Old, events.Unknown)
				t.write(c, c.entered, r.Old, c.state, events.Unknown, events.Unknown, false, 0)
			}
		}
		return true
	}
	return false
}

// timeWaitAlloc takes inet_twsk_alloc: the full socket is about to be replaced.
func (t *Table) timeWaitAlloc(r *events.Record) {
	if r.SK == 0 || r.New != events.TimeWait && r.New != events.FinWait2 {
		return
	}
	i := t.find(r.SK)
	if i != 0 {
		if c := t.slab.at(i); c.has(isTimeWait) || !same(c, r) {
			t.vanish(i, r.TS)
			i = 0
		}
	}
	if j := t.find(r.PeerSK); j != 0 && j != i {
		// The walk under way has met the timewait socket before this record was
		// written; or the end of one with the same address was lost.
		if c := t.slab.at(j); c.has(isBorn) && t.space(c).open {
			t.dropBorn(j)
		} else {
			t.vanish(j, r.TS)
		}
	}
	if i == 0 {
		i = t.pendingOf(r) // the two records changed places
	}
	if r.PeerSK == 0 {
		t.timeWaitRefused(i, r)
		return
	}
	if t.refused.sk == r.SK {
		t.refused = refused{} // by kprobe an attempt was told before
	}
	var c *conn
	switch {
	case i == 0:
		_, c = t.create(r, r.PeerSK, r.New)
		c.set(isInexact | needsOld | isTimeWait)
		if r.New == events.TimeWait {
			c.set(startKnown)
			c.setExpires(r.TS + timeWaitNS)
		}
		t.expectClose(r)
		return
	case t.slab.at(i).has(isPending):
		c = t.slab.at(i)
		p := t.pending[c.aux]
		t.unpend(c)
		t.absorb(c, r)
		r := *r
		if p.limbo {
			t.expectClose(&r)
		} else {
			r.TS = min(r.TS, p.ts) // its close was told already
		}
		t.replace(i, c, &r)
		return
	}
	c = t.slab.at(i)
	t.absorb(c, r)
	if c.has(isHeld) {
		t.release(c)
	}
	t.expectClose(r)
	t.replace(i, c, r)
}

func (t *Table) expectClose(r *events.Record) {
	t.forgetMoved(r.SK)
	if len(t.moved) == maxMoved {
		t.moved = t.moved[:copy(t.moved, t.moved[1:])]
	}
	t.moved = append(t.moved, moved{r.SK, r.PeerSK})
}

// replace lets c live on as the timewait socket of r.
func (t *Table) replace(i uint32, c *conn, r *events.Record) {
	t.unlink(c)
	t.link(i, c, r.PeerSK)
	c.clear(noTimeWait | noFinWait2 | isBorn)
	c.set(isTimeWait)
	known := c.state == events.FinWait1 || c.state == events.FinWait2 || c.state == events.Closing
	switch {
	case r.New == events.FinWait2:
		if c.state != events.FinWait2 {
			t.mend(c, events.FinWait2)
		}
	case known:
		t.move(c, r.TS, events.TimeWait, 0, sure, 0)
		c.setExpires(r.TS + timeWaitNS)
	default:
		// What led here was lost; the record to come tells the state before.
		t.stats.Mismatches++
		c.leave(c.state, events.Unknown)
		c.set(isInexact | needsOld | startKnown)
		c.state, c.entered = events.TimeWait, r.TS
		c.setExpires(r.TS + timeWaitNS)
	}
}

// timeWaitRefused takes an inet_twsk_alloc without a result, or (by kprobe) only an
// attempt that may be followed by one.
func (t *Table) timeWaitRefused(i uint32, r *events.Record) {
	if i == 0 {
		t.refused = refused{r.SK, r.New}
		return
	}
	c := t.slab.at(i)
	if c.has(isPending) {
		p := t.pending[c.aux]
		if p.limbo {
			return
		}
		t.unpend(c)
		t.absorb(c, r)
		t.finishAt(i, p.ts, p.certain, overflowed(r.New == events.TimeWait))
		return
	}
	t.absorb(c, r)
	c.refuse(r.New)
}

// refused is the latest socket without a connection in the table for which there was no
// timewait socket: the transition to CLOSE that follows makes it known.
type refused struct {
	sk uint64
	as events.State
}

// refuse notes that there was no timewait socket, which would have begun in state s.
func (c *conn) refuse(s events.State) {
	c.set(noTimeWait)
	c.clear(noFinWait2)
	if s == events.FinWait2 {
		c.set(noFinWait2)
	}
}

// timeWaitSchedule takes __inet_twsk_schedule: the timer was set anew, because the
// peer's FIN came to FIN_WAIT2, or a segment to TIME_WAIT
// (tcp_timewait_state_process; RFC 9293 section 3.10.7.4).
func (t *Table) timeWaitSchedule(r *events.Record) {
	i := t.find(r.SK)
	if i == 0 || r.New != events.TimeWait {
		return
	}
	c := t.slab.at(i)
	if !c.has(isTimeWait) || !same(c, r) {
		return
	}
	t.absorb(c, r)
	if c.state == events.FinWait2 {
		t.move(c, r.TS, events.TimeWait, 0, sure, 0)
	} else {
		t.stats.TimeWaitRestarts++
	}
	if r.Flags&events.FlagTimer != 0 {
		c.setExpires(r.TS + r.TimerNS)
	}
}

// timeWaitDestroy takes tcp_twsk_destructor: the timewait socket is gone.
func (t *Table) timeWaitDestroy(r *events.Record) {
	if r.SK == 0 || r.New != events.TimeWait && r.New != events.FinWait2 {
		return
	}
	i := t.find(r.SK)
	if i != 0 {
		if c := t.slab.at(i); !c.has(isTimeWait) || !same(c, r) {
			t.vanish(i, r.TS)
			i = 0
		}
	}
	began := r.TS
	if r.Flags&events.FlagTimer != 0 {
		began = min(r.TS+r.TimerNS-timeWaitNS, r.TS)
	}
	if i == 0 {
		if i = t.pendingOf(r); i != 0 {
			// Its beginning was lost.
			t.confirm(i, r.SK, met{r.New, began, r.New == events.TimeWait, events.Unknown})
		}
	}
	if i == 0 {
		// Not known, or known as the full socket that it was: whose it is would
		// take a search. The next walk finds that one gone.
		return
	}
	c := t.slab.at(i)
	t.absorb(c, r)
	if c.state == events.FinWait2 && r.New == events.TimeWait {
		t.stats.Mismatches++
		t.move(c, max(began, c.entered), events.TimeWait, 0, mended, 0)
	}
	e := t.timeWaitEnd(c, r)
	t.finishAt(i, r.TS, sure, e)
}

// finishAt writes the move to CLOSE and the account.
func (t *Table) finishAt(i uint32, ts int64, certain certainty, e ending) {
	t.move(t.slab.at(i), ts, events.Close, 0, certain, e.errno)
	t.closed(i, ts, e, certain == sure)
}

// timeWaitEnd tells why the timewait socket of c is gone.
func (t *Table) timeWaitEnd(c *conn, r *events.Record) ending {
	const segment = events.FlagSegment
	var (
		known   = r.Flags&events.FlagTimer != 0
		bySeg   = r.Flags&segment != 0
		byRST   = bySeg && r.Flags&events.FlagSegmentRST != 0
		expired = known && (r.TimerNS <= 0 || r.TimerNS <= jiffyNS && r.Flags&(segment|events.FlagActor) == 0)
	)
	if c.state == events.FinWait2 {
		switch {
		case expired: // tcp_fin_timeout
			return ending{how: events.HowTimeout, closer: events.SideLocal}
		case byRST:
			return ending{how: events.HowRST, reset: events.ResetPeer, closer: events.SideRemote}
		case bySeg:
			// Data, or a SYN, after close(): answered with an RST (TCP_TW_RST).
			return ending{how: events.HowRST, reset: events.ResetOther, closer: events.SideLocal}
		case !known:
			return ending{how: events.HowUnknown}
		}
		return ending{how: events.HowAbort}
	}
	e := ending{how: events.HowFIN}
	switch {
	case expired:
		e.timeWait = events.TimeWaitExpired
	case byRST:
		e.timeWait = events.TimeWaitReset
	case bySeg && r.Flags&events.FlagSegmentSYN != 0:
		e.timeWait = events.TimeWaitReused
	case bySeg, !known:
		e.timeWait = events.TimeWaitUnknown
	case r.Flags&events.FlagActor != 0 && t.connecting(c, r.PID):
		e.timeWait = events.TimeWaitReused
	default:
		e.timeWait = events.TimeWaitKilled
	}
	return e
}

// connecting says whether the process is looking for a port towards c's remote end
// right now: a connect takes over the port of a TIME_WAIT (tcp_tw_reuse,
// tcp_twsk_unique) between CLOSE -> SYN_SENT and tcp_connect.
func (t *Table) connecting(c *conn, pid uint32) bool {
	for _, i := range t.held {
		h := t.slab.at(i)
		if h.state == events.SynSent && t.procs.get(h.owner).PID == pid &&
			h.family == c.family && h.rport == c.rport && h.raddr == c.raddr &&
			(h.lport == 0 || h.lport == c.lport) && t.space(h) == t.space(c) {
			return true
		}
	}
	return false
}

// endUnseen ends a timewait socket of which ts is the first time without it. early
// is what is said where its timer had not run out.
func (t *Table) endUnseen(i uint32, ts int64, early events.TimeWaitEnd) {
	c := t.slab.at(i)
	expires := c.expires()
	expired := expires != events.Unknown && ts >= expires-jiffyNS
	var e ending
	switch {
	case c.state == events.TimeWait && expired:
		e = ending{how: events.HowFIN, timeWait: events.TimeWaitExpired}
	case c.state == events.TimeWait:
		e = ending{how: events.HowFIN, timeWait: early}
	case expired:
		e = ending{how: events.HowTimeout, closer: events.SideLocal}
	default:
		e = ending{how: events.HowUnknown}
	}
	t.finishAt(i, max(ts, c.entered), loose, e)
}
