package aggregate

import (
	"github.com/tcptrace/tcptrace/internal/events"
)

// maxChildNS: a listener's child passes SYN_RECV within microseconds of its making,
// or (TCP Fast Open) in about its round trip time.
const maxChildNS = 50_000_000

// transition takes a record of inet_sock_set_state.
func (t *Table) transition(r *events.Record) {
	if r.Old == r.New || r.SK == 0 {
		return
	}
	i := t.find(r.SK)
	if r.Old == events.Close || r.Old == events.Listen && r.New == events.SynRecv {
		t.open(r, i)
		return
	}
	if i != 0 {
		if c := t.slab.at(i); c.has(isTimeWait) || !same(c, r) {
			t.vanish(i, r.TS)
			i = 0
		}
	}
	if i == 0 {
		if r.New == events.Close && t.closeMoved(r) {
			return
		}
		i, _ = t.create(r, r.SK, r.Old)
		t.slab.at(i).set(isInexact)
		if r.New == events.Close && t.refused.sk == r.SK {
			t.slab.at(i).refuse(t.refused.as)
			t.refused = refused{}
		}
	}
	c := t.slab.at(i)
	t.absorb(c, r)
	if c.has(isHeld) {
		if gap := r.TS - c.entered; c.opened == events.OpenedPassive && gap > maxChildNS && gap > 2*int64(r.SRTTUS)*1000 {
			// Possibly another child, in the address of the first.
			c.set(isInexact)
		}
		t.release(c)
	}
	certain := sure
	if c.state != r.Old {
		certain = t.mend(c, r.Old)
	}
	if r.New == events.Close {
		t.close(i, c, r, certain)
		return
	}
	t.firstFIN(c, r)
	t.attribute(c, r)
	var rtt int64
	if r.Old == events.SynRecv {
		rtt = int64(r.SRTTUS) * 1000
	}
	t.move(c, r.TS, r.New, rtt, certain, r.Err)
}

// open takes the first transition of a socket's life.
func (t *Table) open(r *events.Record, i uint32) {
	if i != 0 {
		c := t.slab.at(i)
		if c.has(isBorn) && t.space(c).open && !c.has(isTimeWait) && (r.Cookie == 0 || same(c, r)) {
			// The walk that is under way read the socket before this record was
			// written, and after the time that its own record carries.
			t.reopen(c, r)
			return
		}
		t.vanish(i, r.TS)
	}
	t.forgetMoved(r.SK)
	i, c := t.create(r, r.SK, r.New)
	c.set(startKnown)
	t.opened(c, r)
	switch {
	case r.New == events.SynRecv && r.Old == events.Listen,
		r.New == events.SynSent && (c.lport == 0 || t.cfg.Hooks != HooksPoll):
		t.hold(i, c)
	default:
		t.write(c, r.TS, r.Old, r.New, events.Unknown, events.Unknown, true, r.Err)
	}
}

func (t *Table) reopen(c *conn, r *events.Record) {
	if t.loss.due && t.loss.added > 0 {
		t.loss.added--
	}
	c.clear(isBorn | isInexact)
	c.set(startKnown)
	c.state = r.New
	c.first, c.entered = r.TS, r.TS
	c.closer = closerBy(r.New)
	c.npast = 0
	t.absorb(c, r)
	t.opened(c, r)
	t.write(c, r.TS, r.Old, r.New, events.Unknown, events.Unknown, true, r.Err)
}

// opened notes who opened, and how.
func (t *Table) opened(c *conn, r *events.Record) {
	switch {
	case r.New == events.SynSent:
		c.opened = events.OpenedActive
	case r.New == events.SynRecv && r.Old == events.Listen:
		c.opened = events.OpenedPassive
	}
	t.attribute(c, r)
}

// connect takes a record of tcp_connect: the port is known now.
func (t *Table) connect(r *events.Record) {
	if r.SK == 0 {
		return
	}
	i := t.find(r.SK)
	if i != 0 {
		if c := t.slab.at(i); c.has(isTimeWait) || !same(c, r) {
			t.vanish(i, r.TS)
			i = 0
		}
	}
	if i == 0 {
		// Its first transition was lost.
		var c *conn
		i, c = t.create(r, r.SK, events.SynSent)
		c.set(isInexact)
		c.opened = events.OpenedActive
	}
	c := t.slab.at(i)
	t.absorb(c, r)
	if c.owner == 0 {
		t.own(c, r, events.OwnerConnect)
	}
	if c.has(isHeld) {
		t.release(c)
	}
}

// accept takes a record of security_sock_graft.
func (t *Table) accept(r *events.Record) {
	i := t.find(r.SK)
	if i == 0 {
		return
	}
	c := t.slab.at(i)
	if c.has(isTimeWait) || !same(c, r) {
		return
	}
	t.absorb(c, r)
	if c.has(isHeld) && c.state == events.SynRecv {
		t.release(c)
	}
	t.own(c, r, events.OwnerAccept)
}

// certainty is how far a step of a connection can be believed.
type certainty uint8

const (
	sure   certainty = iota
	mended           // the step is true, but something before it was not seen
	loose            // the time lies between two walks
)

// mend puts c into the state that a record has seen it leave.
func (t *Table) mend(c *conn, old events.State) certainty {
	certain := sure
	if c.has(isBorn) && t.space(c).open {
		// The walk read the state after the time that its record carries.
		c.entered = c.first
	} else {
		t.unseen()
		c.leave(c.state, events.Unknown)
		c.set(isInexact)
		c.entered = events.Unknown
		certain = mended
	}
	if c.closer == events.SideNone || c.has(isBorn) {
		c.closer = closerBy(old)
	}
	c.clear(startKnown | isBorn)
	c.state = old
	return certain
}

// move takes c from its state into another at ts and writes the transition. rtt is
// the first round trip time, ns, or 0 unknown; it stands for the stay in SYN_RECV,
// because a child is made when the handshake is over (tcp_check_req): the wait
// before was a request socket's (RFC 9293 section 3.5).
func (t *Table) move(c *conn, ts int64, to events.State, rtt int64, certain certainty, errno uint16) {
	from := c.state
	inOld, inOldMin := events.Unknown, events.Unknown
	spent := events.Unknown
	switch {
	case from == events.SynRecv && c.opened == events.OpenedPassive:
		if rtt > 0 {
			inOld, spent = rtt, rtt
			// Measured back from the last ACK, not from the child's making.
			c.first = min(c.first, ts-rtt)
		}
	case c.has(startKnown):
		inOld = max(ts-c.entered, 0)
		spent = inOld
	default:
		c.set(isInexact)
		if c.entered != events.Unknown && ts > c.entered {
			inOldMin = ts - c.entered
			spent = inOldMin
		}
	}
	if certain != sure {
		c.set(isInexact)
	}
	c.clear(isBorn)
	if to == events.Close {
		t.last = events.StateTime{State: from, NS: spent}
	} else {
		c.leave(from, spent)
		c.state, c.entered = to, ts
		c.set(startKnown)
		if certain == loose {
			c.clear(startKnown)
		}
	}
	t.write(c, ts, from, to, inOld, inOldMin, certain == sure, errno)
}

// write hands a transition to the sink.
func (t *Table) write(c *conn, ts int64, from, to events.State, inOld, inOldMin int64, exact bool, errno uint16) {
	t.identify(&t.tr.Conn, c)
	t.tr.TS, t.tr.Old, t.tr.New = ts, from, to
	t.tr.InOld, t.tr.InOldMin = inOld, inOldMin
	t.tr.Exact, t.tr.Err = exact, errno
	t.tr.Opened, t.tr.ClosedBy = c.opened, events.Process{}
	if to == events.TimeWait {
		t.tr.ClosedBy = t.procs.get(c.closedBy)
	}
	t.sink.Transition(&t.tr)
}
