package aggregate

import (
	"cmp"
	"slices"

	"github.com/tcptrace/tcptrace/internal/events"
)

// namespace is a network namespace and the walk over its sockets.
type namespace struct {
	inode uint32
	open  bool  // between begin and end of a walk
	begin int64 // of the last walk
	gen   uint8 // of the last walk, never 0 then
	// live connections of it are in the index; seen of them the walk under way
	// has met, or a record since its beginning has.
	live, seen int
	pending    int
	origins    int    // that refer to it
	walk       uint64 // the last round of walks that came by; 0 none
	fresh      bool   // completely walked since the last loss
	overflows  int64  // counted and not laid to a connection yet; -1 unknown
	// refused sockets found no room in the walk under way, untracked in the last.
	refused, untracked uint64
}

// unused says that nothing refers to ns.
func (ns *namespace) unused() bool {
	return ns.origins == 0 && ns.live == 0 && ns.pending == 0 && ns.inode != 0
}

// forget takes c out of the counts.
func (ns *namespace) forget(c *conn) {
	ns.live--
	if ns.open && c.scan == ns.gen {
		ns.seen--
		c.scan = 0
	}
}

func (t *Table) namespace(inode uint32) *namespace {
	ns := t.spaces[inode]
	if ns == nil {
		ns = &namespace{inode: inode}
		t.spaces[inode] = ns
	}
	return ns
}

// walk is the round over all namespaces that is under way.
type walk struct {
	n     uint64
	open  bool
	begin int64
}

// odd is a socket that a walk saw in another state than the table has it in.
type odd struct {
	conn  uint32
	id    uint64
	have  events.State // in the table
	seen  events.State
	ts    int64
	began int64 // seen was entered then, or later
	exact bool  // seen was entered right then
}

// loss is what was lost and not made up for yet.
type loss struct {
	due   bool
	at    int64
	total uint64
	whole int64 // up to here nothing is known to be missing

	unseen uint64 // see Table.unseen; not told yet

	corrected, removed, added uint64
}

// A socket changes state a moment before it can be found by its
// addresses; a walk that came in between did not see it.
const (
	heldGraceNS     = 50_000_000
	timeWaitGraceNS = 1_000_000
	// inet_sk_state_store tells of a state before it stores it.
	storeGraceNS = 1_000_000
)

// isTimeWaitSocket tells a timewait socket in FIN_WAIT2 from a full one.
func isTimeWaitSocket(r *events.Record) bool {
	const full = events.FlagPendingKnown | events.FlagHasSocket | events.FlagOrphan
	return r.New == events.TimeWait || r.New == events.FinWait2 && r.Flags&full == 0
}

func (t *Table) scanBegin(r *events.Record) {
	ns := t.namespace(r.NetNS)
	if t.walk.open && ns.walk == t.walk.n {
		t.walkEnds(r.TS, false) // it comes by again
	}
	if !t.walk.open {
		t.walk.n++
		t.walk.open, t.walk.begin = true, r.TS
	}
	ns.walk = t.walk.n
	ns.open, ns.begin, ns.seen, ns.refused = true, r.TS, 0, 0
	t.limit.noIdle = false
	if ns.gen++; ns.gen == 0 {
		ns.gen = 1
	}
	clear(t.born)
	t.odd = t.odd[:0]
}

// socket takes one socket of a walk. Its state was read after its time: it may
// reflect records that are still to come, but none that are younger than the end.
func (t *Table) socket(r *events.Record) {
	switch r.New {
	case events.StateUnknown, events.Close, events.NewSynRecv, events.BoundInactive:
		return // no connection yet, or none any more
	}
	if r.SK == 0 {
		return
	}
	ns := t.namespace(r.NetNS)
	timeWait := isTimeWaitSocket(r)
	began, exact := stateBegan(r, timeWait)
	i := t.find(r.SK)
	if i != 0 {
		if c := t.slab.at(i); c.has(isTimeWait) != timeWait || !same(c, r) || t.outlived(c, r) {
			if c.entered > r.TS {
				return // what the table knows is younger
			}
			t.vanish(i, max(ns.begin, c.entered))
			i = 0
		}
	}
	if timeWait {
		if p := t.pendingOf(r); p != 0 && p != i && t.follows(p, i, r, began) {
			if i != 0 {
				t.endUnseen(i, t.slab.at(p).first, events.TimeWaitReused)
			}
			m := met{r.New, began, exact, events.Unknown}
			if r.Flags&events.FlagTimer != 0 {
				m.expires = r.TS + r.TimerNS
			}
			t.confirm(p, r.SK, m)
			return
		}
	}
	if i == 0 {
		t.bear(ns, r, timeWait, began, exact)
		return
	}
	c := t.slab.at(i)
	c.clear(isBorn)
	t.absorb(c, r)
	if c.has(isHeld) && c.has(isIdentified) {
		t.release(c)
	}
	if c.state != r.New {
		if timeWait && t.cfg.Hooks == HooksPoll && c.state == events.FinWait2 {
			t.move(c, min(max(began, c.entered), r.TS), events.TimeWait, 0, sure, 0)
		} else {
			t.odd = append(t.odd, odd{i, c.id, c.state, r.New, r.TS, began, exact})
			return
		}
	}
	if timeWait && r.Flags&events.FlagTimer != 0 {
		c.setExpires(r.TS + r.TimerNS)
	}
}

// outlived says that c is a listener's child of which nothing came after its making,
// for longer than that can take, while records were lost: it has no identity to
// compare, and what a walk has met at its address is most likely another.
func (t *Table) outlived(c *conn, r *events.Record) bool {
	return t.loss.due && c.has(isHeld) && c.state == events.SynRecv && r.TS-c.entered > maxChildNS
}

// follows says whether a timewait socket that a walk met is that of the pending
// connection p rather than of i, which has the same address. Without cookies the
// time tells: it cannot have begun before p closed.
func (t *Table) follows(p, i uint32, r *events.Record, began int64) bool {
	if i == 0 || t.slab.at(i).cookie != 0 && r.Cookie != 0 {
		return i == 0
	}
	return r.New == events.FinWait2 || began >= t.pending[t.slab.at(p).aux].ts-jiffyNS
}

// stateBegan tells from a walk's record since when, at least, a socket is in its
// state, and whether it entered it right then. The timer of a TIME_WAIT was set to
// 60 s at its beginning. In CLOSE_WAIT the FIN was the last thing that came; the
// kernel keeps that time (rcv_tstamp) in jiffies, so that up to one of them is not
// past yet.
func stateBegan(r *events.Record, timeWait bool) (began int64, exact bool) {
	if r.Flags&events.FlagTimer == 0 {
		return r.TS, false
	}
	switch {
	case timeWait && r.New == events.TimeWait:
		return min(r.TS+r.TimerNS-timeWaitNS, r.TS), true
	case r.New == events.CloseWait:
		return r.TS - max(r.TimerNS-jiffyNS, 0), false
	}
	return r.TS, false
}

// bear adds a socket that the table does not know.
func (t *Table) bear(ns *namespace, r *events.Record, timeWait bool, began int64, exact bool) {
	if !t.roomFor(timeWait) {
		ns.refused++
		return
	}
	i, c := t.create(r, r.SK, r.New)
	if ns.open {
		c.set(isBorn)
	}
	c.first, c.entered = began, began
	if exact {
		c.set(startKnown)
	}
	if t.loss.due {
		t.loss.added++
	}
	if !timeWait {
		return
	}
	c.set(isTimeWait)
	if r.Flags&events.FlagTimer != 0 {
		c.setExpires(r.TS + r.TimerNS)
	}
	if ns.open && (t.loss.due || t.cfg.Hooks != HooksFull) {
		t.born[t.tuple(c)] = i
	}
}

// dropBorn forgets a connection that turned out to be another's second half.
func (t *Table) dropBorn(i uint32) {
	if t.loss.due && t.loss.added > 0 {
		t.loss.added--
	}
	t.drop(i)
}

// scanEnd takes the end of a complete walk: what was there all the time was seen.
func (t *Table) scanEnd(r *events.Record) {
	ns := t.spaces[r.NetNS]
	if ns == nil || !ns.open {
		return
	}
	t.correct()
	if ns.seen != ns.live {
		t.sweep(ns)
	}
	t.resolvePending(ns, r.Count)
	ns.open = false
	ns.untracked = ns.refused
	ns.seen = 0
	clear(t.born)
	if t.loss.due && ns.begin >= t.loss.at {
		ns.fresh = true
		for _, other := range t.spaces {
			if !other.fresh && (other.walk != 0 || other.live > 0) {
				return
			}
		}
		t.resynced(r.TS)
	}
}

// progress orders the states of a life.
var progress = [events.NumStates]uint8{
	events.SynSent: 1, events.SynRecv: 2, events.Established: 3, events.FinWait1: 4, events.CloseWait: 4,
	events.FinWait2: 5, events.Closing: 5, events.LastAck: 5, events.TimeWait: 6,
}

// correct puts those sockets right whose state the walk saw and no record told.
func (t *Table) correct() {
	for _, o := range t.odd {
		c := t.slab.at(o.conn)
		if c.id != o.id || c.state != o.have || c.entered > o.ts {
			continue
		}
		if progress[o.seen] <= progress[c.state] && c.entered > o.ts-storeGraceNS {
			continue
		}
		t.unseen()
		if t.loss.due {
			t.loss.corrected++
		}
		if c.closer == events.SideNone || o.seen == events.Closing {
			c.closer = closerBy(o.seen)
		}
		c.clear(startKnown)
		c.entered = events.Unknown
		ts := o.ts
		if o.exact {
			ts = o.began
		}
		t.move(c, ts, o.seen, 0, loose, 0)
		c.entered = min(o.began, ts)
		if o.exact {
			c.set(startKnown)
			c.setExpires(o.began + timeWaitNS)
		}
	}
	t.odd = t.odd[:0]
}

// sweep removes the connections of ns that the walk did not meet.
func (t *Table) sweep(ns *namespace) {
	t.gone = t.gone[:0]
	t.slab.each(func(i uint32, c *conn) bool {
		if c.sk == 0 || c.scan == ns.gen || t.space(c) != ns {
			return true
		}
		grace := int64(0)
		switch {
		case c.has(isHeld):
			grace = heldGraceNS
		case c.has(isTimeWait):
			grace = timeWaitGraceNS
		}
		switch {
		case c.entered <= ns.begin-grace:
			t.gone = append(t.gone, i)
		case c.has(isHeld) && c.entered < ns.begin:
			c.set(isUnmet) // a tick decides
		}
		return true
	})
	t.removeGone(ns.begin)
}

// removeGone ends the connections of t.gone, which are not there any more at ts.
func (t *Table) removeGone(ts int64) {
	slices.SortFunc(t.gone, func(a, b uint32) int {
		return cmp.Compare(t.slab.at(a).id, t.slab.at(b).id)
	})
	younger := t.findYounger(func(need map[tuple]youngest) {
		for _, i := range t.gone {
			if c := t.slab.at(i); c.has(isTimeWait) && c.state == events.TimeWait &&
				(c.aux == 0 || c.expires() > ts) {
				need[t.tuple(c)] = youngest{older: c.id}
			}
		}
	})
	for _, i := range t.gone {
		c := t.slab.at(i)
		if t.loss.due && !c.has(isHeld) {
			t.loss.removed++
		}
		switch {
		case c.has(isTimeWait):
			if t.cfg.Hooks == HooksKprobe {
				t.unseen() // its end
			}
			end, why := ts, events.TimeWaitUnknown
			if y := younger[t.tuple(c)]; y.id != 0 {
				end, why = max(y.first, c.entered), events.TimeWaitReused
			}
			t.endUnseen(i, end, why)
		case t.becameTimeWait(i, c):
		default:
			t.remove(i, ts)
		}
	}
}

// becameTimeWait joins a full socket that is gone with the timewait socket that the
// walk has met in its place.
func (t *Table) becameTimeWait(i uint32, c *conn) bool {
	if c.has(isHeld) {
		return false
	}
	j := t.bornAs(c)
	if j == 0 {
		return false
	}
	if t.loss.due {
		t.loss.removed--
		t.loss.corrected++
	}
	b := t.slab.at(j)
	sk, m := b.sk, metAs(b)
	t.dropBorn(j)
	t.takeOver(i, c, sk, m, false)
	return true
}

// walkEnds takes the end of a round over all namespaces. A namespace that was
// walked before and is not any more has ended, and its sockets with it; one round
// may miss a namespace that is there, a second does not.
func (t *Table) walkEnds(ts int64, complete bool) {
	if !t.walk.open {
		return
	}
	t.walk.open = false
	resync := t.loss.due && complete && t.walk.begin >= t.loss.at
	var ended []*namespace
	for _, ns := range t.spaces {
		if ns.walk != 0 && (ns.walk+1 < t.walk.n || resync && ns.walk < t.walk.n) {
			ended = append(ended, ns)
		}
	}
	slices.SortFunc(ended, func(a, b *namespace) int { return cmp.Compare(a.inode, b.inode) })
	for _, ns := range ended {
		t.end(ns)
	}
	if resync {
		t.resynced(ts)
	}
}

// end removes what is left of a namespace.
func (t *Table) end(ns *namespace) {
	ns.open = false
	if ns.live > 0 {
		t.gone = t.gone[:0]
		t.slab.each(func(i uint32, c *conn) bool {
			if c.sk != 0 && t.space(c) == ns && c.entered <= t.walk.begin {
				t.gone = append(t.gone, i)
			}
			return true
		})
		t.removeGone(t.walk.begin)
	}
	if ns.pending > 0 {
		t.eachPending(func(p *pending) bool {
			return p.ts < t.walk.begin && t.space(t.slab.at(p.conn)) == ns
		}, t.resolveUnsure)
	}
	ns.walk, ns.untracked = 0, 0
	if ns.unused() {
		delete(t.spaces, ns.inode)
	}
}

// lost takes the count of records that the kernel could not hand over.
func (t *Table) lost(r *events.Record) {
	n := uint64(max(r.Count, 0))
	l := &t.loss
	l.total += n
	if !l.due {
		l.corrected, l.removed, l.added = 0, 0, 0
	}
	l.due, l.at = true, r.TS
	for _, ns := range t.spaces {
		ns.fresh = false
	}
	for k := range t.pending {
		t.pending[k].doubt = false
	}
	lost := events.Lost{TS: r.TS, Count: n, Total: l.total, Since: l.whole}
	if r.Flags&events.FlagNested != 0 {
		lost.Cause = events.LostUnseen
	}
	l.whole, l.unseen = r.TS, 0
	t.sink.Lost(&lost)
}

// unseen notes that a record or a walk told of a state into which no transition was
// told: the kernel ran no program for it, and says nothing of that (seen on 6.18, in
// softirqs of a virtual machine whose processors were overcommitted). What a loss
// explains, one that is known or one that is told within a second, is no other.
func (t *Table) unseen() {
	t.stats.Mismatches++
	if !t.loss.due {
		t.loss.unseen++
	}
}

// tellUnseen tells of what was not seen. The table is right again: no walk is needed.
func (t *Table) tellUnseen() {
	l := &t.loss
	if l.unseen == 0 || l.due {
		return
	}
	l.total += l.unseen
	lost := events.Lost{TS: t.lastTS, Count: l.unseen, Total: l.total, Since: l.whole, Cause: events.LostUnseen}
	l.unseen = 0
	t.sink.Lost(&lost)
}

// resynced tells that every namespace was walked since the loss.
func (t *Table) resynced(ts int64) {
	l := &t.loss
	l.due = false
	t.moved = t.moved[:0]
	t.doubtPending()
	resync := events.Resync{TS: ts, Corrected: l.corrected, Removed: l.removed, Added: l.added}
	t.sink.Resync(&resync)
}
