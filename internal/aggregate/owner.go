package aggregate

import (
	"github.com/tcptrace/tcptrace/internal/events"
)

// own makes the process that r names the owner.
func (t *Table) own(c *conn, r *events.Record, src events.OwnerSource) {
	if r.PID == 0 {
		return
	}
	n := t.procs.ref(events.Process{PID: r.PID, Comm: r.Comm})
	t.procs.unref(c.owner)
	c.owner, c.ownerSrc = n, src
}

// attribute lays a transition to the process that caused it. Only records with
// FlagActor name one; every other transition runs for whatever task the softirq
// interrupted.
func (t *Table) attribute(c *conn, r *events.Record) {
	if r.Flags&events.FlagActor == 0 || r.PID == 0 {
		return
	}
	switch {
	case r.New == events.SynSent:
		t.own(c, r, events.OwnerConnect)
	case r.New == events.Listen:
		t.own(c, r, events.OwnerListen)
	case r.New == events.Close && r.Err != 0:
		// ss -K: the process that ends it never held it (tcp_abort).
		if r.Err == errConnAborted {
			t.closes(c, r)
		}
	case r.New == events.Close, r.New == events.FinWait1, r.New == events.LastAck:
		// The holder closes: after a fork it need not be the one that opened.
		// What comes after shutdown() or close(), such as the end of an orphan,
		// tells nothing more.
		if c.closedBy != 0 {
			return
		}
		t.closes(c, r)
		if t.procs.get(c.owner).PID != r.PID {
			t.own(c, r, events.OwnerClose)
		}
	}
}

// closes notes the process that r names as the one that closed c.
func (t *Table) closes(c *conn, r *events.Record) {
	if c.closedBy == 0 && c.state != events.Listen {
		c.closedBy = t.procs.ref(events.Process{PID: r.PID, Comm: r.Comm})
	}
}

// holders is the walk over descriptors that is under way.
type holders struct {
	open   bool
	gen    uint8
	others []otherHolder     // of sockets whose owner is somebody else, in order
	index  map[uint32]uint32 // connection -> others
}

type otherHolder struct {
	conn uint32
	id   uint64
	proc events.Process
	many bool // more than one process
}

func (t *Table) holdersBegin() {
	h := &t.holders
	if h.gen++; h.gen == 0 {
		h.gen = 1
	}
	h.open = true
	h.others = h.others[:0]
	if h.index == nil {
		h.index = make(map[uint32]uint32)
	}
	clear(h.index)
}

// holder takes a descriptor: its process is the owner where none is known.
func (t *Table) holder(r *events.Record) {
	i := t.find(r.SK)
	if i == 0 || r.PID == 0 {
		return
	}
	c := t.slab.at(i)
	if c.has(isTimeWait|isHeld) || !same(c, r) {
		return
	}
	h := &t.holders
	if c.owner == 0 {
		t.own(c, r, events.OwnerScan)
		c.holders = h.gen
		return
	}
	if t.procs.get(c.owner).PID == r.PID {
		c.holders = h.gen
		return
	}
	if !h.open {
		return
	}
	proc := events.Process{PID: r.PID, Comm: r.Comm}
	if n, ok := h.index[i]; ok && h.others[n].id == c.id {
		if h.others[n].proc.PID != r.PID {
			h.others[n].many = true
		}
		return
	}
	h.index[i] = uint32(len(h.others))
	h.others = append(h.others, otherHolder{conn: i, id: c.id, proc: proc})
}

// holdersEnd gives each socket that its owner does not hold any more to the one
// process that does, if it is one.
func (t *Table) holdersEnd(r *events.Record) {
	h := &t.holders
	for n := range h.others {
		o := &h.others[n]
		c := t.slab.at(o.conn)
		if c.id != o.id || c.holders == h.gen || o.many || c.closedBy != 0 {
			continue
		}
		t.procs.unref(c.owner)
		c.owner, c.ownerSrc = t.procs.ref(o.proc), events.OwnerScan
	}
	h.open = false
	t.walkEnds(r.TS, true)
}
