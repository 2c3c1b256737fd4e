package account

import (
	"cmp"
	"net/netip"
	"slices"

	"github.com/tcptrace/tcptrace/internal/aggregate"
	"github.com/tcptrace/tcptrace/internal/events"
	"github.com/tcptrace/tcptrace/internal/heaviest"
	"github.com/tcptrace/tcptrace/internal/watch"
)

// Limits of what is kept apart. A group takes 3 kB and 1 to 2 kB for each state
// that its connections leave.
const (
	maxGroups  = 1024
	maxTallies = 1024
)

// Config says how an account is kept.
type Config struct {
	By    By
	Hooks string // copied into the Summary
}

// Account collects. Not safe for concurrent use.
type Account struct {
	cfg    Config
	groups *heaviest.Map[ident, group]
	others group // of the groups that were folded

	closedBy       *heaviest.Map[closeKey, tally]
	closedByOthers tally
	waits          *heaviest.Map[waitKey, tally]
	waitsOthers    tally

	lost    Lost
	resyncs Resyncs
}

var _ aggregate.Sink = (*Account)(nil)

// closeKey is who called close for connections that this side ended first.
type closeKey struct {
	process events.Process
	first   events.Side
}

// waitKey is a process that closed, and the remote end that it closed towards.
type waitKey struct {
	process events.Process
	remote  netip.AddrPort
}

type tally struct{ n uint64 }

func (t *tally) weight() int64 { return int64(t.n) }

// New returns an empty Account.
func New(cfg Config) *Account {
	a := &Account{cfg: cfg}
	a.groups = heaviest.New[ident](maxGroups, (*group).weight, func(g *group) { a.others.merge(g) })
	a.closedBy = heaviest.New[closeKey](maxTallies, (*tally).weight, func(t *tally) { a.closedByOthers.n += t.n })
	a.waits = heaviest.New[waitKey](maxTallies, (*tally).weight, func(t *tally) { a.waitsOthers.n += t.n })
	a.lost.Since = events.Unknown
	return a
}

// Transition counts a change of state.
func (a *Account) Transition(t *events.Transition) {
	g := a.group(&t.Conn, t.Opened, t.ClosedBy)
	if t.Old != events.Close && (t.Old != events.Listen || t.New == events.Close) {
		g.left[t.Old]++
		g.stay(t.Old).add(t)
	} else if t.New == events.SynSent || t.New == events.SynRecv {
		g.opened[t.Opened]++
	}
	if t.New == events.Close {
		return
	}
	g.entered[t.New]++
	if t.New == events.TimeWait {
		by := t.ClosedBy
		if by.PID == 0 {
			by = t.Owner
		}
		a.waits.At(waitKey{by, remoteKey(&t.Conn, t.Opened)}).n++
	}
}

// Closed counts a connection that is over.
func (a *Account) Closed(c *events.Closed) {
	g := a.group(&c.Conn, c.Opened, c.ClosedBy)
	g.ends.add(c)
	g.timeWait.ended[c.TimeWaitEnd]++
	if c.TimeWaitOverflow {
		g.timeWait.overflow++
	}
	if c.ClosedBy.PID != 0 {
		a.closedBy.At(closeKey{c.ClosedBy, c.Closer}).n++
	}
}

// Lost counts events that the kernel could not hand over.
func (a *Account) Lost(l *events.Lost) {
	if a.lost.Times == 0 {
		a.lost.Since = l.Since
	}
	a.lost.Times++
	a.lost.Count = l.Total
}

// Resync counts what was put right after a loss.
func (a *Account) Resync(r *events.Resync) {
	a.resyncs.Times++
	a.resyncs.Corrected += r.Corrected
	a.resyncs.Removed += r.Removed
	a.resyncs.Added += r.Added
}

// Limit has nothing to count: the table's Stats tell at the end.
func (a *Account) Limit(*events.Limit) {}

// Living counts a connection or listener that lives at the end. It is called after
// the last Transition. One in TIME_WAIT is closed already, unless it was before the
// trace: its Closed is a minute late for most traces.
func (a *Account) Living(i *aggregate.Info, end int64) {
	g := a.group(&i.Conn, i.Opened, i.ClosedBy)
	s := i.State
	if s == events.TimeWait && i.Closer != events.SideUnknown {
		g.ends.add(&events.Closed{Closer: i.Closer, How: events.HowFIN, Exact: i.SinceExact})
		if i.ClosedBy.PID != 0 {
			a.closedBy.At(closeKey{i.ClosedBy, i.Closer}).n++
		}
	}
	age := max(end-i.Since, 0)
	if i.Since == events.Unknown {
		age = 0
	}
	exact := i.SinceExact
	if g.now[s] == 0 || age > g.oldest[s] {
		g.oldest[s], g.oldestExact[s] = age, exact
	}
	g.now[s]++
}

// End is what is known of the end of a trace beside what Account was told.
type End struct {
	Begin, End int64 // of what was traced, CLOCK_MONOTONIC ns
	// Walked: the end of the trace has a walk over the sockets, after which the
	// connection table is right.
	Walked bool
	// Now counts the sockets by state as that walk met them, request sockets as
	// SYN_RECV; nil: the connection table must tell, which has no request sockets.
	Now *[events.NumStates]int
	// Ports is the use of local ports, fullest first.
	Ports []watch.PortUse
	Stats aggregate.Stats
}

// Summary returns the account.
func (a *Account) Summary(end End) *Summary {
	s := &Summary{
		Begin: end.Begin, End: end.End, Hooks: a.cfg.Hooks, By: a.cfg.By, Lost: a.lost, Resyncs: a.resyncs,
		Vanished: end.Stats.Vanished, Forgotten: end.Stats.Forgotten, Untracked: end.Stats.Untracked, Ports: end.Ports, FromWalk: end.Walked,
	}
	var all group
	groups := a.groups.List()
	for _, e := range groups {
		all.merge(&e.Value)
	}
	all.merge(&a.others)
	for state := range all.now {
		s.Now[state] = int64(all.now[state])
		if end.Now != nil && events.AllStates.Has(events.State(state)) {
			s.Now[state] = int64(end.Now[state])
		}
	}
	s.Total = all.result(Key{})
	for _, e := range groups {
		s.Groups = append(s.Groups, e.Value.result(e.Value.key))
	}
	// What is shown first is what closed most; who only has connections comes by
	// how many they are.
	slices.SortStableFunc(s.Groups, func(x, y *Group) int {
		return cmp.Or(cmp.Compare(y.Ends.Closed, x.Ends.Closed), cmp.Compare(y.Living(), x.Living()))
	})
	if a.groups.Forgotten() > 0 {
		s.Others = a.others.result(Key{})
		s.Folded = a.groups.Forgotten()
	}
	s.ClosedBy, s.ClosedByOthers = a.closers()
	s.TimeWait = a.timeWaits(&all, end.End-end.Begin)
	return s
}

// closers joins the tallies of each process.
func (a *Account) closers() (list []Closer, others uint64) {
	at := make(map[events.Process]int)
	for _, e := range a.closedBy.List() {
		i, ok := at[e.Key.process]
		if !ok {
			i = len(list)
			at[e.Key.process] = i
			list = append(list, Closer{Process: e.Key.process})
		}
		list[i].Closed += e.Value.n
		list[i].First[e.Key.first] += e.Value.n
	}
	slices.SortStableFunc(list, func(x, y Closer) int { return cmp.Compare(y.Closed, x.Closed) })
	return list, a.closedByOthers.n
}

// timeWaitSeconds is how long a TIME_WAIT lasts: TCP_TIMEWAIT_LEN.
const timeWaitSeconds = 60

func (a *Account) timeWaits(all *group, span int64) TimeWait {
	w := TimeWait{
		Entered: all.entered[events.TimeWait], Ended: all.timeWait.ended, Overflow: all.timeWait.overflow,
		Others: a.waitsOthers.n, PerSecond: -1, Steady: events.Unknown, Mean: events.Unknown,
	}
	w.Ended[events.TimeWaitNone] = 0
	if st := all.stays[events.TimeWait]; st != nil {
		w.Mean = st.sum.mean(st.count)
	}
	rate := func(n uint64) float64 { return float64(n) * 1e9 / float64(span) }
	if span > 0 {
		w.PerSecond = rate(w.Entered)
		w.Steady = int64(rate(w.Entered*timeWaitSeconds) + 0.5)
	}
	for _, e := range a.waits.List() {
		by := TimeWaitBy{Process: e.Key.process, Remote: e.Key.remote, Entered: e.Value.n, PerSecond: -1}
		if span > 0 {
			by.PerSecond = rate(by.Entered)
		}
		w.By = append(w.By, by)
	}
	return w
}
