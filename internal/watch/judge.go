package watch

import (
	"cmp"
	"slices"

	"github.com/tcptrace/tcptrace/internal/events"
)

// Rule is a time that no socket should stay in any of some states.
type Rule struct {
	States events.StateSet
	Age    int64 // ns
}

// Leak is a socket that stayed in a state for as long as a Rule says.
type Leak struct {
	// Socket is as it was when that was first seen, or at the end of the trace if
	// it was in the state still. Age is how long it stayed.
	Socket
	TS    int64 // when it left the state, or of the last look at it
	Limit int64 // the Rule's Age
	Left  bool  // it left the state
}

// leaksKept bounds the leaks that are remembered one by one; the others are
// counted.
const leaksKept = 1 << 16

// Judge finds the sockets that stay too long in a state. A socket is judged when
// it leaves the state, which tells how long it was there, at the end of each walk
// over the descriptors, and at the end. Where only a lower bound of the time is
// known, that is what counts. Not safe for concurrent use.
type Judge struct {
	store  *Store
	limits [events.NumStates]int64 // 0: as long as it likes
	open   map[leakKey]openLeak    // those in the state still
	ended  []*Leak
	kept   int
	count  int
	round  uint64
}

type leakKey struct {
	id    uint64
	state State
}

type openLeak struct {
	leak  *Leak  // nil: only counted
	round uint64 // the last look that saw it
}

// NewJudge returns a Judge by the rules, of which the shortest counts for a state.
// Of cfg, States is made of the rules.
func NewJudge(cfg Config, rules []Rule) *Judge {
	j := &Judge{open: make(map[leakKey]openLeak)}
	cfg.States = 0
	for _, r := range rules {
		cfg.States |= r.States
		for _, state := range r.States.List() {
			if j.limits[state] == 0 || r.Age < j.limits[state] {
				j.limits[state] = r.Age
			}
		}
	}
	j.store = NewStore(cfg)
	j.store.judge = j
	return j
}

// Add takes one record into account. Records come in the order of their times.
func (j *Judge) Add(r *events.Record) {
	j.store.Add(r)
	if r.Kind == events.KindHoldersEnd {
		j.look(r.TS, false)
	}
}

// Leaks returns what was found until now (CLOCK_MONOTONIC ns), which is not before
// the last record, the longest stay first, and the number of all leaks, of which
// some may have been too many to be kept.
func (j *Judge) Leaks(now int64) (leaks []*Leak, total int) {
	j.look(now, true)
	leaks = slices.Clone(j.ended)
	for _, o := range j.open {
		if o.leak != nil {
			leaks = append(leaks, o.leak)
		}
	}
	slices.SortFunc(leaks, func(x, y *Leak) int {
		return cmp.Or(cmp.Compare(y.Age, x.Age), cmp.Compare(x.ID, y.ID), cmp.Compare(x.State, y.State))
	})
	return leaks, j.count
}

// Unjudged returns how often a socket was not kept for want of room: it may have
// stayed too long unseen.
func (j *Judge) Unjudged() uint64 { return j.store.Refused() }

// over reports whether e has been in its state for too long.
func (j *Judge) over(e *entry, now int64) bool {
	limit := j.limits[e.state]
	return limit > 0 && now-e.since >= limit
}

// look judges the sockets that are there. With last, what is known of those that
// were judged already is brought up to date.
func (j *Judge) look(now int64, last bool) {
	j.store.prune(now)
	if p := j.store.cfg.Processes; p != nil {
		p.Refresh()
	}
	j.round++
	b := j.store.builder(now)
	for _, e := range j.store.socks {
		if !j.over(e, now) {
			continue
		}
		key := leakKey{e.id, e.state}
		o, known := j.open[key]
		if !known {
			if l := j.build(b, e, now); l != nil {
				o.leak = j.keep(l)
				known = true
			}
		} else if last && o.leak != nil {
			j.update(b, o.leak, e, now)
		}
		if known {
			o.round = j.round
			j.open[key] = o
		}
	}
	// Of those that are gone the leaving was not told.
	for key, o := range j.open {
		if o.round == j.round {
			continue
		}
		delete(j.open, key)
		if o.leak != nil {
			o.leak.Left = true
			j.ended = append(j.ended, o.leak)
		}
	}
}

// left judges a socket that leaves its state at ts.
func (j *Judge) left(e *entry, ts int64) {
	if !j.over(e, ts) {
		return
	}
	key := leakKey{e.id, e.state}
	o, known := j.open[key]
	if !known {
		l := j.build(j.store.builder(ts), e, ts)
		if l == nil {
			return
		}
		o.leak = j.keep(l)
	}
	delete(j.open, key)
	if l := o.leak; l != nil {
		l.Age, l.AgeExact, l.TS, l.Left = ts-e.since, e.exact, ts, true
		if e.exact {
			l.Since = e.since
		}
		j.ended = append(j.ended, l)
	}
}

// build returns the leak of e, or nil where nobody wants to know of it.
func (j *Judge) build(b *builder, e *entry, ts int64) *Leak {
	sock := b.one(e)
	if sock == nil {
		return nil
	}
	return &Leak{Socket: *sock, TS: ts, Limit: j.limits[e.state]}
}

// update takes over who holds a leaked socket now; who is not known any more held
// it until then.
func (j *Judge) update(b *builder, l *Leak, e *entry, now int64) {
	if sock := b.one(e); sock != nil && (sock.Holders != nil || sock.Listener != nil) {
		l.Socket = *sock
	}
	l.Age, l.AgeExact, l.TS = now-e.since, e.exact, now
}

// keep counts a leak, and returns it unless there are too many.
func (j *Judge) keep(l *Leak) *Leak {
	j.count++
	if j.kept >= leaksKept {
		return nil
	}
	j.kept++
	return l
}

// LeakVerdict says in one sentence why leaks sit in CLOSE_WAIT and what to do; it
// is empty if none does.
func LeakVerdict(leaks []*Leak) string {
	g := &group{
		Group:   &Group{State: events.CloseWait, PID: 1, Reasons: make(map[Reason]int)},
		backlog: make(map[uint16]int),
	}
	for _, l := range leaks {
		if l.State != events.CloseWait {
			continue
		}
		g.Count++
		switch l.Reason {
		case ReasonNone:
			continue
		case ReasonNotAccepted:
			g.backlog[l.Local.Port()]++
			g.knock(&l.Socket)
		case ReasonUnread:
			g.unread += int64(l.RXPending)
		}
		g.Reasons[l.Reason]++
	}
	if g.Count == 0 {
		return ""
	}
	return closeWait(g)
}
