package aggregate

import (
	"github.com/tcptrace/tcptrace/internal/events"
)

// Linux' numbers (include/uapi/asm-generic/errno.h) on every system.
const (
	errPipe         = 32
	errAddrNotAvail = 99
	errConnAborted  = 103
	errConnReset    = 104
	errConnRefused  = 111
)

// ending is how a connection came to its end.
type ending struct {
	how      events.How
	reset    events.ResetKind
	closer   events.Side // who ended it, if nobody had sent a FIN
	timeWait events.TimeWaitEnd
	overflow bool
	errno    uint16
}

// closerBy tells from a state who sent the first FIN (RFC 9293 section 3.6);
// SideNone before there was one.
func closerBy(s events.State) events.Side {
	switch s {
	case events.CloseWait, events.LastAck:
		return events.SideRemote
	case events.FinWait1, events.FinWait2:
		return events.SideLocal
	case events.Closing:
		return events.SideBoth
	case events.TimeWait:
		return events.SideUnknown
	}
	return events.SideNone
}

// firstFIN notes the side of the first FIN, and that two of them crossed.
func (t *Table) firstFIN(c *conn, r *events.Record) {
	if c.closer == events.SideNone || r.New == events.Closing {
		c.closer = closerBy(r.New)
	}
}

// unread is how many bytes the application had not read. A FIN counts one in
// rcv_nxt - copied_seq until it is read, and is the last of them.
func unread(r *events.Record) bool {
	if r.Flags&events.FlagPendingKnown == 0 {
		return false
	}
	pending := r.RXPending
	if r.Flags&events.FlagFINReceived != 0 && pending > 0 {
		pending--
	}
	return pending > 0
}

// resetBy tells why a socket that was still in someone's hands sent an RST. Both
// checks come in __tcp_close before the socket is orphaned: unread data (RFC 2525
// section 2.17) first, then SO_LINGER with a time of 0.
func resetBy(r *events.Record) events.ResetKind {
	if r.Flags&events.FlagOrphan != 0 || r.Flags&events.FlagHasSocket == 0 {
		return events.ResetOther
	}
	switch {
	case unread(r):
		return events.ResetUnread
	case r.Flags&events.FlagLinger0 != 0:
		return events.ResetLinger0
	}
	return events.ResetOther
}

// judge tells how the full socket ended that r reports to go to CLOSE. It knows
// nothing of timewait sockets.
func judge(r *events.Record) ending {
	e := ending{errno: r.Err}
	switch r.Err {
	case 0:
		return judgeWithoutError(r)
	case errConnReset, errPipe:
		// tcp_reset: EPIPE in CLOSE_WAIT.
		e.how, e.reset, e.closer = events.HowRST, events.ResetPeer, events.SideRemote
	case errConnAborted:
		// tcp_abort sends an RST where tcp_need_reset says so.
		e.how, e.closer = events.HowAbort, events.SideNone
		switch r.Old {
		case events.Established, events.CloseWait, events.FinWait1, events.FinWait2, events.SynRecv:
			e.reset, e.closer = events.ResetOther, events.SideLocal
		}
	case errConnRefused:
		if r.Old == events.SynSent {
			e.how, e.reset, e.closer = events.HowRefused, events.ResetPeer, events.SideRemote
			break
		}
		fallthrough // an ICMP error that was remembered until the timer gave up
	default:
		// tcp_write_err: ETIMEDOUT, or the soft error that ICMP had left.
		e.how, e.closer = events.HowTimeout, events.SideNone
	}
	return e
}

func judgeWithoutError(r *events.Record) ending {
	switch r.Old {
	case events.SynSent:
		// close() of a socket that connects, or a connect that found no port.
		return ending{how: events.HowAbort, closer: events.SideNone}
	case events.LastAck:
		return ending{how: events.HowFIN, closer: events.SideRemote}
	case events.SynRecv:
		if r.Flags&events.FlagLocked == 0 {
			// A child that never got into the backlog.
			return ending{how: events.HowAbort, closer: events.SideNone}
		}
	case events.FinWait1, events.Closing:
		if r.Flags&events.FlagLocked == 0 {
			// An orphan for which there was no memory (tcp_out_of_resources).
			return ending{how: events.HowAbort, reset: events.ResetOther, closer: events.SideLocal}
		}
	}
	// A task ends it, or its listener, in whose backlog it waited
	// (inet_csk_listen_stop), or FIN_WAIT2 is not waited for (TCP_LINGER2).
	return ending{how: events.HowRST, reset: resetBy(r), closer: events.SideLocal}
}

// close takes a full socket's transition to CLOSE.
func (t *Table) close(i uint32, c *conn, r *events.Record, certain certainty) {
	if r.Old == events.Listen {
		t.attribute(c, r)
		t.move(c, r.TS, events.Close, 0, certain, r.Err)
		t.drop(i)
		return
	}
	e := judge(r)
	if c.has(noTimeWait) {
		// inet_twsk_alloc: tcp_max_tw_buckets, or no memory.
		e = overflowed(!c.has(noFinWait2))
	} else if mayBeTimeWait(r) {
		t.pend(i, c, r, certain, e)
		return
	}
	if r.Old == events.SynSent && r.Err == 0 && r.Flags&events.FlagActor != 0 && c.lport == 0 {
		// inet_hash_connect found no port: a connect that fails, nobody's close.
		e.errno = errAddrNotAvail
	} else {
		t.attribute(c, r)
	}
	t.move(c, r.TS, events.Close, 0, certain, e.errno)
	t.closed(i, r.TS, e, true)
}

// overflowed is the end of a socket for which there was no timewait socket: in
// TIME_WAIT both FINs had been sent; an orphan in FIN_WAIT2 is forgotten without
// the peer's FIN, and without an RST.
func overflowed(timeWait bool) ending {
	if timeWait {
		return ending{how: events.HowFIN, overflow: true}
	}
	return ending{how: events.HowAbort, overflow: true}
}

// closed writes the account of c and forgets it. The move to CLOSE was written.
func (t *Table) closed(i uint32, ts int64, e ending, exact bool) {
	c := t.slab.at(i)
	cl := &t.cl
	*cl = events.Closed{
		TS:               ts,
		Opened:           c.opened,
		Closer:           c.closer,
		How:              e.how,
		Reset:            e.reset,
		ClosedBy:         t.procs.get(c.closedBy),
		Exact:            exact && !c.has(isInexact),
		TimeWaitEnd:      e.timeWait,
		TimeWaitOverflow: e.overflow,
		TotalNS:          max(ts-c.first, 0),
		Err:              e.errno,
	}
	if c.closer == events.SideNone {
		cl.Closer = e.closer
	}
	if cl.TotalNS == 0 && c.opened == events.OpenedUnknown {
		cl.TotalNS = events.Unknown // this was all that we saw of it
	}
	states := t.states[:0]
	for k := range c.past[:c.npast] {
		states = append(states, events.StateTime{State: c.past[k], NS: c.spent[k]})
	}
	cl.States = append(states, t.last)
	t.identify(&cl.Conn, c)
	t.drop(i)
	t.sink.Closed(cl)
}

// vanish takes a connection whose address is another's now. Its close was not seen,
// and neither was it seen to become a timewait socket: which of them it was is open
// until what was lost is known.
func (t *Table) vanish(i uint32, ts int64) {
	c := t.slab.at(i)
	gone := c.has(isTimeWait|isHeld) || c.state == events.Listen || !c.has(isIdentified)
	if gone && t.loss.due && !c.has(isHeld) {
		t.loss.removed++
	}
	switch {
	case c.has(isTimeWait):
		t.endUnseen(i, ts, events.TimeWaitUnknown)
	case gone:
		t.remove(i, ts)
	default:
		t.wait(i, c, pending{conn: i, ts: ts, limbo: true, doubt: !t.loss.due})
	}
}

// remove ends a connection that is gone without having been seen to close.
func (t *Table) remove(i uint32, ts int64) {
	c := t.slab.at(i)
	if c.has(isHeld) {
		// Nothing was written about it, and who it was never came out.
		t.drop(i)
		return
	}
	t.stats.Vanished++
	c.clear(startKnown)
	c.entered = events.Unknown
	t.move(c, ts, events.Close, 0, loose, 0)
	if c.state == events.Listen {
		t.drop(i)
		return
	}
	t.closed(i, ts, ending{how: events.HowUnknown}, false)
}
